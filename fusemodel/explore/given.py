"""The frames that a partial mapping file leaves open: see :mod:`fusemodel.explore.frame` for those of a search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from math import inf, prod
from typing import Any

import numpy as np

from fusemodel.arch.units import quantity
from fusemodel.cascade.extents import integer
from fusemodel.cascade.parse import Names, parse_expression
from fusemodel.errors import InputError
from fusemodel.explore.frame import Option, Scene, shareable
from fusemodel.explore.layout import Problem, layouts
from fusemodel.explore.ragged import tile_sizes
from fusemodel.explore.said import Said
from fusemodel.mapping.partial import AUTO
from fusemodel.mapping.spec import ALL
from fusemodel.model.amounts import ceil_div
from fusemodel.model.tiles import divisors

_MOST = 4096  # combinations of tile sizes


def members_of(said: Said, scene: Scene) -> tuple[str, ...]:
    """The Einsums of a group, in order."""
    if said.alone:
        return tuple(scene.einsums)
    if not said.bind:
        raise InputError(
            "which Einsums a group has must be said", said.where(), expected='`bind: {"QK, GM": auto}`'
        )  # fmt: skip
    return tuple(n for n in scene.einsums if n in said.bind)


@dataclass(frozen=True)
class Given:
    """A frame as a mapping file gives it: see :class:`fusemodel.explore.frame.Frame`. ``bind`` has what is said of each
    nest, ``kept`` of each level; sizes are those of every part, arrays of the ones that are shared loops."""

    members: tuple[str, ...]
    nests: tuple[tuple[str, ...], ...]
    parts: Mapping[str, tuple[str, ...]]
    orders: tuple[tuple[str, ...], ...]
    sizes: tuple[dict[str, Any], int]
    bind: Mapping[tuple[str, ...], Mapping[str, Any]]
    kept: Mapping[str, Any] | None
    schedule: tuple[tuple[str, ...], ...] | None
    more: Mapping[str, Any]
    tile: Mapping[str, Any] = field(default_factory=dict)

    deep = True

    @property
    def own(self) -> bool:
        return any(
            self.leaf(loop) not in self.orders[0] and loop != ALL
            for held in (self.kept or {}).values() if isinstance(held, Mapping)
            for loop in held.values() if loop != AUTO
        )  # fmt: skip

    def loops(self, order: Sequence[str]) -> list[str]:
        return list(order)

    def leaves(self, rank: str) -> tuple[str, ...]:
        return tuple(x for p in self.parts.get(rank, ()) for x in self.leaves(p)) or (rank,)

    def leaf(self, loop: str) -> str:
        return self.leaves(loop)[-1]

    def inside(self, rank: str, extent: int) -> list[tuple[str, int, int, bool]]:
        own = [x for x in self.leaves(rank) if x not in self.orders[0]]
        sizes = {x: int(self.sizes[0].get(x, extent)) for x in own}
        return [(x, n, n, True) for x, n in sizes.items()]

    def fields(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        tile: dict[str, Any] = {r: list(ps) for r, ps in self.parts.items()}
        for ps in self.parts.values():
            for p in ps[1:]:
                if p not in self.parts:
                    n = sizes.get(p, self.sizes[0][p])
                    tile[p] = n if isinstance(n, int) else "any"
        found: dict[str, Any] = {**self.tile, **tile}
        schedule = {"schedule": [list(line) for line in self.schedule]} if self.schedule else {}
        return {"tile": found, **schedule, **self.more}

    def forced(self, tensor: str) -> frozenset[str]:
        said = [held.get(tensor) for held in (self.kept or {}).values() if isinstance(held, Mapping)]
        return frozenset(self.leaf(x) for x in said if x not in (None, AUTO, ALL))

    def nearest(self, under: list[str]) -> list[str]:
        """All of the loops: a file may want a tile under any."""
        return under

    def allows(self, tensor: str, shared: Sequence[tuple[str, str]], own: tuple[str, str] | None) -> bool:
        if self.kept is None:
            return True
        here = {**dict(shared), **({own[0]: own[1]} if own else {})}
        for level in {*here, *self.kept}:
            held = self.kept.get(level, {})
            said = held if held == AUTO else held.get(tensor)
            if said == AUTO:
                continue
            loop = said if said in (None, ALL) else self.leaf(said)
            if here.get(level) != loop:
                return False
        return True

    def among(self, nest: Sequence[str], unit: str, pipelined: bool, problem: Problem) -> list[Option]:
        said = self.bind.get(tuple(nest), {})
        if said.get("unit", AUTO) not in (AUTO, unit) or said.get("pipelined", AUTO) not in (AUTO, pipelined):
            return []
        spatial, order = said.get("spatial", AUTO), said.get("loops", said.get("temporal", AUTO))
        if spatial != AUTO:
            listed_ = {d: (xs,) if isinstance(xs, str) else tuple(xs) for d, xs in spatial.items()}
            spread = tuple((d, tuple(x for r in xs for x in self.leaves(r))) for d, xs in listed_.items())
            if not {d for d, _ in spread} <= {d for d, _ in problem.shape}:
                return []
            problem = replace(problem, spatial=spread)
        if order != AUTO:
            problem = replace(problem, order=tuple(x for r in order for x in self.leaves(r)))
        return [Option(unit, layout, pipelined) for layout in layouts(problem)]

    def line(self, name: str) -> int:
        return next((i for i, line in enumerate(self.schedule or ()) if name in line), 0)

    def room(self, level: str) -> float:
        said = self.more.get("budget", {})
        return quantity(said[level], "bytes") if level in said else inf


@dataclass
class Frames:
    """Every frame that a group leaves open."""

    scene: Scene
    said: Said
    sets: Mapping[str, int]

    def every(self) -> Iterator[Given]:
        """Every frame that the file leaves: sizes of parts that are no shared loops, orders of loops."""
        said, members = self.said, members_of(self.said, self.scene)
        joint = said.nests
        named = {n for nest in joint for n in nest}
        nests = sorted([*joint, *((n,) for n in members if n not in named)], key=lambda x: members.index(x[0]))
        parts, fixed, tile = self.tiles()
        schedule = said.raw.get("schedule", AUTO)
        lines = None if schedule == AUTO else tuple(map(tuple, schedule))
        bind = {nest: said.bind[nest[0]] for nest in joint}
        shell = Given(members, tuple(nests), parts, ((),), ({}, 1), bind, said.keep, lines, said.more, tile)
        orders = self.orders(shell)
        combinations = self.combinations(parts, fixed)
        for order in orders:
            ranges: dict[tuple[tuple[str, int], ...], list[dict[str, int]]] = {}
            for one in combinations:
                key = tuple((x, n) for x, n in one.items() if x not in order)
                ranges.setdefault(key, []).append(one)
            for rows in ranges.values():
                sizes: dict[str, Any] = dict(self.scene.extents)
                for x in rows[0]:
                    varies = x in order and len(rows) > 1
                    sizes[x] = np.array([float(r[x]) for r in rows]) if varies else rows[0][x]
                yield replace(shell, orders=(order,), sizes=(sizes, len(rows)))

    def tiles(self) -> tuple[dict[str, tuple[str, ...]], dict[str, Any], dict[str, Any]]:
        """Parts of ranks, what is said of their sizes, and the entries for ranks of the cascade."""
        said, parts = self.said.tile, self.said.parts
        inner = {p for ps in parts.values() for p in ps}
        sizes = {p: self.sets.get(p, said.get(p, AUTO)) for p in inner}
        return parts, sizes, {r: n for r, n in said.items() if r not in parts and r not in inner}

    def combinations(self, parts: Mapping[str, tuple[str, ...]], said: Mapping[str, Any]) -> list[dict[str, int]]:
        """Sizes of all parts, for every way to divide the ranks."""
        found: list[dict[str, int]] = [{}]
        pending = dict(parts)
        while pending:
            rank = next(r for r in pending if not any(r in ps for ps in pending.values()))
            ps = pending.pop(rank)
            grown: list[dict[str, int]] = []
            for one in found:
                whole = one.get(rank, self.scene.extents.get(rank, 1))
                ragged = rank in self.scene.extents and rank not in self.scene.cascade.parents
                for inner in self.divided(ps[1:], whole, said, ragged, few=len(parts) > 1):
                    grown.append({**one, ps[0]: ceil_div(whole, prod(inner.values())), **inner})
            if not grown:
                raise InputError(f"no sizes of the parts of {rank!r} divide it", self.said.where("tile", rank))
            found = grown
            if len(found) > _MOST:
                raise InputError(f"more than {_MOST} combinations of tile sizes", self.said.where("tile"),
                                 expected="some of them given")  # fmt: skip
        return found

    def divided(
        self, inner: Sequence[str], whole: int, said: Mapping[str, Any], ragged: bool, *, few: bool
    ) -> list[dict[str, int]]:
        """Sizes of the inner parts of a rank, the innermost first; ``ragged``: they need not divide it."""
        found: list[dict[str, int]] = [{}]
        for p in reversed(inner):
            grown = []
            for one in found:
                left = ceil_div(whole, prod(one.values()))
                sizes = self.options(p, said[p], one)
                if sizes is None:
                    sizes = tile_sizes(left, left, few=few) if ragged else divisors(left)
                else:
                    sizes = [n for n in sizes if left % n == 0] or (sizes if ragged else [])
                grown += [{p: n, **one} for n in sizes]
            found = grown
        return found

    def options(self, part: str, size: Any, known: Mapping[str, int]) -> Sequence[int] | None:
        """The sizes that are said, beside those of parts further in; None if they are to be found."""
        if isinstance(size, list):
            return tuple(size)
        if size in (AUTO, "any", "max"):
            return None
        at = self.said.where("tile", part)
        every = {**self.scene.extents, **known}
        return (integer(parse_expression(str(size), Names(dict.fromkeys(every), extents_only=True), at), every,
                        f"tile {part!r}", at),)  # fmt: skip

    def orders(self, shell: Given) -> list[tuple[str, ...]]:
        """The shared loops that are given, or every order of those that may be shared: of a rank in parts all but the
        innermost."""
        loops = self.said.raw.get("loops", AUTO)
        if loops != AUTO:
            ranks = [x for r in loops for x in self.expanded(r, shell)]
            return [tuple(dict.fromkeys(ranks))]
        shared = shareable(self.scene, shell.members)
        outer = [r for r in self.scene.cascade.batch if r in shared]
        inside = [
            p for r in self.scene.extents
            if r in shared and r not in outer and r not in self.scene.cascade.split
            for p in (shell.leaves(r)[:-1] if r in shell.parts else shell.leaves(r))
            if r in shell.parts or self.scene.cascade.parents.get(r)
        ]  # fmt: skip
        place = {p: i for i, p in enumerate(inside)}
        chains = [shell.leaves(r) for r in shell.parts]
        kept = [
            order for order in permutations(inside)
            if all((held := [x for x in order if x in c]) == sorted(held, key=place.__getitem__) for c in chains)
        ]  # fmt: skip
        return [(*outer, *order) for order in kept]

    def expanded(self, rank: str, shell: Given) -> list[str]:
        return [x for r in self.scene.split([rank]) for x in shell.leaves(r)] if rank in self.scene.extents else [
            *shell.leaves(rank)
        ]  # fmt: skip


__all__ = ["Frames", "Given", "members_of"]
