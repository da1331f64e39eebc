"""Several instances of an array: heads and batches are divided among them, what they share is divided too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from fusemodel.arch import Architecture
from fusemodel.errors import InputError
from fusemodel.mapping.spec import Design


def instances_of(arch: Architecture) -> int:
    """How many instances of its units an architecture has."""
    return arch.instances


@dataclass(frozen=True)
class Share:
    """What one instance does: the design with its share of every level that all of them use, the extents of its batch
    ranks, and by how much its work is multiplied to give all of it."""

    design: Design
    sets: dict[str, int]
    times: float


def share_of(design: Design, extents: Mapping[str, int], sets: Mapping[str, int], instances: int) -> Share:
    """The share of the instance that has most to do. InputError where there is nothing to divide among them."""
    if instances == 1:
        alone = design if design.arch.instances == 1 else replace(design, arch=_of_each(design.arch, 1))
        return Share(alone, dict(sets), 1.0)
    batch = [r for r in design.cascade.batch if extents[r] > 1]
    if not batch:
        raise InputError(
            f"{design.cascade.name!r} has no batch rank to divide among {instances} instances",
            expected="`batch: [b, h]` in the cascade, of more than one step",
        )
    every = prod(extents[r] for r in batch)
    mine = -(-every // instances)
    arch = _of_each(design.arch, min(instances, every))
    return Share(replace(design, arch=arch), {**sets, **dict.fromkeys(batch, 1), batch[0]: mine}, every / mine)


def _of_each(arch: Architecture, instances: int) -> Architecture:
    """What one instance has of a machine while so many are at work."""
    levels = dict(arch.levels)
    for name, level in levels.items():
        rate, port = level.bandwidth_bytes_per_s, level.port_bytes_per_s
        if rate is not None and not level.per_instance:
            rate = rate / instances if port is None else min(rate / instances, port)
            levels[name] = replace(level, bandwidth_bytes_per_s=rate)
    return replace(arch, levels=levels, instances=1)
