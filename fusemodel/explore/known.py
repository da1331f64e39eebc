"""What is known of mapping a cascade on machines that differ in nothing but their memories: frames, and what their
choices add up to. A sweep keeps it from one machine to the next.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

import numpy as np

from fusemodel.arch import Architecture
from fusemodel.errors import InputError
from fusemodel.explore.bounds import Bounds, assigned
from fusemodel.explore.columns import Costs
from fusemodel.explore.costs import Costing
from fusemodel.explore.frame import Frame, Option, Scene, few_sizes, frames, options, orders, ragged_splits
from fusemodel.explore.ragged import tile_sizes
from fusemodel.model.amounts import ceil_div

_FEW = 4  # sizes of a middle tile that are tried where some points are absent
_MOST_BYTES = 400 << 20  # of costs; those used longest ago are counted again


def bare(arch: Architecture) -> Architecture:
    """A machine without what may differ among those that share counts: sizes, bandwidths and energies of memories."""
    nothing: dict[str, Any] = {"size_bytes": None, "bandwidth_bytes_per_s": None, "read_pj": 0.0, "write_pj": 0.0}
    return replace(arch, levels={n: replace(x, **nothing) for n, x in arch.levels.items()})


@dataclass
class Order:
    """A frame with its shared loops in one order: ``space`` mappings; what they add up to once that was counted (None:
    none is legal), and what was wrong if so."""

    loops: tuple[str, ...]
    space: int
    counted: bool = False
    costs: Costs | None = None
    problem: InputError | None = None


@dataclass
class Look:
    """A frame, the options of each nest, the combinations of middle tiles, and the orders of its shared loops."""

    scene: Scene
    frame: Any
    choices: list[list[Option]]
    later: frozenset[str]

    @cached_property
    def sizes(self) -> tuple[dict[str, Any], int]:
        return middles(self.scene, self.frame) if isinstance(self.frame, Frame) else self.frame.sizes

    @cached_property
    def orders(self) -> list[Order]:
        ways = orders(self.scene, self.frame) if isinstance(self.frame, Frame) else self.frame.orders
        found = []
        for loops in ways:
            costing = self.costing(loops)
            places = prod(len(costing.shared_places(t)) for t in costing.users)
            found.append(Order(loops, self.sizes[1] * prod(map(len, self.choices)) * places))
        return found

    def costing(
        self, loops: Sequence[str], check: Callable[[], None] = lambda: None, plans: dict[Any, Any] | None = None
    ) -> Costing:
        sizes, length = self.sizes
        return Costing(self.scene, self.frame, loops, self.later, self.choices, sizes, length, check, plans)

    @cached_property
    def cycles(self) -> float | None:
        """When the busiest unit is done at least; None where a last tile of the cascade's own is among other loops."""
        frame, extents = self.frame, self.scene.extents
        if any(outer not in frame.ranks for outer, _ in ragged_splits(self.scene)):
            return None
        times = []
        for nest, mine in zip(frame.nests, self.choices, strict=True):
            here = {x for n in nest for x in self.scene.leaves[n]}
            outside = [x for x in here if x in frame.outer or x in frame.ranks]
            turns = prod(ceil_div(extents[x], frame.tiles.get(x, 1)) for x in outside)
            each: dict[str, float] = {}
            for o in mine:
                each[o.unit] = min(each.get(o.unit, np.inf), o.layout.cycles * turns)
            times.append(each)
        return assigned(times, list(self.scene.arch.units))


@dataclass
class Known:
    """Frames and costs for one cascade, its extents and the units of a machine."""

    looks: dict[tuple[str, ...], list[Look]] = field(default_factory=dict)
    held: OrderedDict[int, Order] = field(default_factory=OrderedDict)
    bytes: int = 0
    bounds: Bounds | None = None
    plans: dict[Any, Any] = field(default_factory=dict)

    def bounds_of(self, scene: Scene) -> Bounds:
        """Bounds on a machine: all but its memory is taken from the one before."""
        before, self.bounds = self.bounds, Bounds(scene)
        self.bounds.learn(before)
        return self.bounds

    def frames_of(self, scene: Scene, members: Sequence[str], later: frozenset[str]) -> list[Look]:
        """Every frame of a group that some unit can run."""
        found = self.looks.get(tuple(members))
        if found is None:
            every = [
                Look(scene, frame, [options(scene, frame, nest) for nest in frame.nests], later)
                for frame in frames(scene, members)
            ]
            self.looks[tuple(members)] = found = [look for look in every if all(look.choices)]
        return found

    def costs(self, look: Look, order: Order, check: Callable[[], None]) -> tuple[Costs | None, int]:
        """What the choices of an order add up to, and how many plans were made for it now."""
        made = 0
        if not order.counted:
            costing = look.costing(order.loops, check, self.plans)
            order.costs, order.problem, order.counted = costing.run(), costing.problem, True
            self.bytes += order.costs.bytes if order.costs else 0
            made = costing.evaluated
        costs = order.costs
        self.held[id(order)] = order
        self.held.move_to_end(id(order))
        while self.bytes > _MOST_BYTES and len(self.held) > 1:
            _, old = self.held.popitem(last=False)
            self.bytes -= old.costs.bytes if old.costs else 0
            old.costs, old.counted = None, False
        return costs, made


def middles(scene: Scene, frame: Frame) -> tuple[dict[str, Any], int]:
    """Every combination of middle tiles, as columns."""
    sizes: dict[str, Any] = dict(scene.extents)
    tiles = {r: ceil_div(scene.extents[r], n) for r, n in frame.tiles.items()}
    few = few_sizes(scene, frame.members, list(tiles))
    each = [tile_sizes(n, n, few=few) for n in tiles.values()]
    if any(scene.einsums[n].where for n in frame.members):  # counted one by one
        each = [d[:: max(1, -(-len(d) // _FEW))] for d in each]
    combinations = list(product(*each))
    rows = np.array(combinations, dtype=float).reshape(len(combinations), len(each))
    for i, (rank, inner) in enumerate(frame.tiles.items()):
        outer, middle, innermost = frame.parts(rank)
        sizes[middle], sizes[innermost] = rows[:, i], inner
        sizes[outer] = ceil_div(tiles[rank], rows[:, i])
    for rank, inner in frame.halves.items():
        _, middle, innermost = frame.parts(rank)
        sizes[middle], sizes[innermost] = ceil_div(scene.extents[rank], inner), inner
    return sizes, len(rows)


__all__ = ["Known", "Look", "Order", "bare", "middles"]
