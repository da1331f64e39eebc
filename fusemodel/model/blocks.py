"""Time of a group whose outer loops are blocks, handed out to the instances of a machine.

The same expressions serve one evaluation and arrays of them (one element a set of extents). Sources of the form: waves,
block overheads and waiting as in Volkov, *Understanding Latency Hiding on GPUs*, 2016; a level's time as in the
roofline of Williams et al., CACM 2009, at the rate that is reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fusemodel.arch import Architecture
from fusemodel.mapping.spec import Group
from fusemodel.model.plan import Plan

Amount: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class BlockWork:
    """What the blocks of a group ask of the machine, all together.

    ``stages`` has the cycles that each unit of one instance would be busy, stage by stage, and ``stage_bytes`` what the
    stage moves at levels that are exposed; ``longest`` is the part of the work that is in the longest block and
    ``steps`` the steps of the shared loops; ``level_bytes`` what is read and written at each level, and ``tile_bytes``
    the tiles that a block keeps near its units, whole.
    """

    blocks: Amount
    stages: Sequence[Mapping[str, Amount]]
    longest: Amount
    steps: Amount
    level_bytes: Mapping[str, Amount]
    tile_bytes: Amount = 0.0
    stage_bytes: Sequence[Mapping[str, Amount]] = ()


@dataclass(frozen=True, slots=True)
class BlockTime:
    """Seconds of each part of a group's time, and of the whole. ``compute`` is the busiest instance's, ``quantised``
    what of it waits for a partly filled last wave, ``unit_s`` the time of each unit were it alone on every instance."""

    total_s: Amount
    compute_s: Amount
    quantised_s: Amount
    level_s: Mapping[str, Amount]
    unit_s: Mapping[str, Amount]
    prologue_s: Amount
    launch_s: Amount
    waves: Amount

    def parts(self) -> dict[str, Amount]:
        """Seconds of every part, by name."""
        return {
            "launch": self.launch_s, "prologue": self.prologue_s, "compute": self.compute_s,
            "last wave": self.quantised_s, **self.unit_s, **self.level_s,
        }  # fmt: skip

    def at(self, i: int) -> BlockTime:
        """One element of arrays, as plain numbers."""

        def one(value: Amount) -> float:
            return float(value if np.ndim(value) == 0 else value[i])

        def each(values: Mapping[str, Amount]) -> dict[str, float]:
            return {n: one(v) for n, v in values.items()}

        return BlockTime(
            one(self.total_s), one(self.compute_s), one(self.quantised_s), each(self.level_s), each(self.unit_s),
            one(self.prologue_s), one(self.launch_s), one(self.waves),
        )  # fmt: skip

    def bound(self) -> str:
        """What the whole time is made of most (plain numbers): a unit or level, the launch, prologues or last wave."""
        level = max(self.level_s, key=lambda n: self.level_s[n], default="")
        waits = {"launch": self.launch_s, "prologue": self.prologue_s}
        if level and self.level_s[level] > self.compute_s:
            waits[level] = self.level_s[level]
        else:
            unit = max(self.unit_s, key=lambda n: self.unit_s[n])
            waits["last wave"] = self.quantised_s
            waits[unit] = self.compute_s - self.quantised_s
        return max(waits, key=lambda n: waits[n])


def block_time(work: BlockWork, group: Group, arch: Architecture) -> BlockTime:
    """Launch + the longest of compute and each level + prologues, with the fill and drain, of the blocks that one
    instance runs."""
    reached = arch.achieved
    busy, units = _stages(work, arch)
    blocks, instances = work.blocks, arch.instances
    waiting = busy + work.steps * _overhead(arch, group.step)
    resident = _resident(work, group, arch)
    longest = waiting * work.longest
    even = np.maximum(busy, waiting / resident) / instances
    per_instance = blocks / instances
    compute = np.maximum(even, longest)
    rounds = np.maximum(per_instance, 1.0)
    if group.order == "static":
        wasted = arch.tail * (np.ceil(per_instance) / per_instance - 1)
        compute = np.maximum(even * (1 + wasted), longest)
        rounds = np.maximum(per_instance * (1 + wasted), 1.0)
    if group.order == "listed":
        queued = np.clip(per_instance / resident - 1, 0.0, 1.0)
        compute = np.maximum(even + queued * longest * resident / 2, longest)
    if group.order != "static":  # all resident at once: nothing evens out that some instances have one more
        crowded = np.where(per_instance <= resident, np.ceil(per_instance), 0.0)
        compute = np.maximum(compute, busy / blocks * crowded)
    first = _overhead(arch, group.prologue) + (_fill(work, arch) if group.fill else 0.0)
    prologue = first * np.maximum(rounds / resident, 1.0)
    level_s: dict[str, Amount] = {}
    for name, moved in work.level_bytes.items():
        level = arch.levels[name]
        if not level.bandwidth_bytes_per_s or name in group.exposed:
            continue
        rate = level.bandwidth_bytes_per_s * reached.get(name, 1.0)
        if level.per_instance:
            level_s[name] = np.maximum(moved / instances, moved * work.longest) / rate
            continue
        level_s[name] = moved / rate
        if level.port_bytes_per_s:
            port = level.port_bytes_per_s * reached.get(f"{name}.port", 1.0)
            level_s[name] = np.maximum(level_s[name], moved / (np.minimum(blocks, instances) * port))
    slowest: Amount = 0.0
    for seconds in level_s.values():
        slowest = np.maximum(slowest, seconds)
    inner = np.maximum(compute, slowest)
    if group.step is not None:  # the last blocks are too few to keep a level busy while they wait
        waves = per_instance / resident
        full = np.floor(waves)
        inner = np.where((full > 0) & (waves > full), np.maximum(inner, slowest * full / waves + longest), inner)
    if group.persistent:  # all but the first prologue beside the work of other blocks
        prologue = np.maximum(prologue - inner, np.minimum(first, prologue))
    launch = _overhead(arch, group.launch)
    return BlockTime(
        launch + inner + prologue, compute, compute - even, level_s,
        {u: v / instances for u, v in units.items()}, prologue, launch, per_instance,
    )  # fmt: skip


def _resident(work: BlockWork, group: Group, arch: Architecture) -> Amount:
    """Blocks on an instance at a time: as many as the group says, if their tiles fit beside each other."""
    sizes = [v.size_bytes for v in arch.levels.values() if v.per_instance and v.kind == "sram" and v.size_bytes]
    if not sizes or group.resident == 1:
        return group.resident
    return np.clip(np.floor(min(sizes) / np.maximum(work.tile_bytes, 1.0)), 1, group.resident)


def _fill(work: BlockWork, arch: Architecture) -> Amount:
    """Seconds in which a block only loads its first tiles: whole ones, through the port of its instance."""
    ports = [(n, v.port_bytes_per_s) for n, v in arch.levels.items() if v.port_bytes_per_s]
    return sum((work.tile_bytes / (p * arch.achieved.get(f"{n}.port", 1.0)) for n, p in ports), 0.0)


def tile_bytes(plan: Plan, sizes: Mapping[str, Amount]) -> Amount:
    """Bytes of the tiles that a block keeps in the levels of its instance, ragged ones whole, buffers counted once."""
    total: Amount = 0.0
    for footprint in plan.footprints:
        if plan.arch.levels[footprint.keep.level].per_instance and footprint.tiles:
            tile = footprint.tiles[0][1]
            words: Amount = 1.0
            for leaf in (x for d in tile.dims for x in d.all_leaves if x not in tile.outside):
                words = words * sizes[leaf]
            total = total + words * plan.arch.word_bytes
    return total


def _stages(work: BlockWork, arch: Architecture) -> tuple[Amount, dict[str, Amount]]:
    """Seconds of the stages one after another, less what overlaps, and of each unit alone: of all blocks, on one
    instance."""
    units: dict[str, Amount] = {}
    one_after_another: Amount = 0.0
    for stage, moved in zip(work.stages, work.stage_bytes or [{}] * len(work.stages), strict=True):
        rates = {u: arch.clock_hz * arch.achieved.get(u, 1.0) for u in stage}
        rates |= {n: (arch.levels[n].bandwidth_bytes_per_s or np.inf) * arch.achieved.get(n, 1.0) for n in moved}
        longest: Amount = 0.0
        for name, amount in (*stage.items(), *moved.items()):
            seconds = amount / rates[name]
            units[name] = units.get(name, 0.0) + seconds
            longest = np.maximum(longest, seconds)
        one_after_another = one_after_another + longest
    together: Amount = 0.0
    for seconds in units.values():
        together = np.maximum(together, seconds)
    return one_after_another + arch.overlap * (together - one_after_another), units


def _overhead(arch: Architecture, name: str | None) -> float:
    return arch.overheads_s[name] if name is not None else 0.0


def cached(
    arch: Architecture, moved: Mapping[str, Mapping[str, tuple[Amount, Amount]]], elements: Mapping[str, Amount],
    group: Group, warm: bool, scale: float = 1.0,
) -> dict[str, dict[str, tuple[Amount, Amount]]]:  # fmt: skip
    """Bytes (``scale`` of them in a unit of ``moved``) read and written by level and tensor, where caches stand between
    levels.

    What inner levels ask of the level outside a cache passes through the cache. Of that, the level outside serves each
    element once: blocks that run together ask for the same tile at about the same time. A ``warm`` cache has kept all
    from the run before if that fits, nothing if it is half again as large, and in between in proportion.
    """
    found = {level: dict(tensors) for level, tensors in moved.items()}
    order = list(arch.levels)
    for cache in (n for n in order[1:] if arch.levels[n].kind == "cache"):
        outer = order[order.index(cache) - 1]
        asked = found[outer]
        once = {t: np.minimum(read, elements[t]) for t, (read, _) in asked.items()}
        written = {t: np.minimum(write, elements[t]) for t, (_, write) in asked.items()}
        held: Amount = sum(np.maximum(once[t], written[t]) for t in asked)
        size = (arch.levels[cache].size_bytes or 0.0) * arch.achieved.get(f"{cache}.size", 1.0) / scale
        kept = np.clip(3 - 2 * held / size, 0.0, 1.0) if warm else 0.0
        for tensor, (read, write) in asked.items():
            own = found[cache].get(tensor, (0.0, 0.0))
            shared = np.maximum(read / group.multicast.get(tensor, 1), once[tensor])
            found[cache][tensor] = (own[0] + shared, own[1] + write)
        found[outer] = {t: (once[t] * (1 - kept), written[t] * (1 - kept)) for t in asked}
    return found
