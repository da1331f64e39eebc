"""Mapping files of which parts are left open (``auto``): the rest is found, exactly, in the frame that is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from math import inf, prod
from typing import Any

import numpy as np

from fusemodel.arch import Architecture, load_architecture
from fusemodel.arch.units import quantity
from fusemodel.cascade import load_cascade
from fusemodel.errors import InputError, Where, listed
from fusemodel.explore.bounds import Bounds
from fusemodel.explore.found import Found, Point
from fusemodel.explore.frame import Option, Scene, shareable
from fusemodel.explore.goal import Best, Goal, added
from fusemodel.explore.group import GroupPoint, GroupSearch, Tally, mapping_of
from fusemodel.explore.layout import Problem, layouts
from fusemodel.explore.mapper import DEFAULT, best_mapping
from fusemodel.explore.ragged import tile_sizes
from fusemodel.mapping.check import main_einsums
from fusemodel.mapping.load import design_of, group_of
from fusemodel.mapping.partial import AUTO, SECTIONS, is_open, is_partial
from fusemodel.mapping.spec import ALL, Candidates
from fusemodel.model.amounts import ceil_div
from fusemodel.model.tiles import divisors
from fusemodel.yamlfile import Document

_MOST = 4096  # combinations of tile sizes


def complete(
    doc: Document, extents: Mapping[str, int], arch: Architecture | None = None, sets: Mapping[str, int] | None = None,
    *, seconds: float | None = None,
) -> Found:  # fmt: skip
    """The best mapping that has everything a partial mapping file says, by its ``minimise`` (latency, then traffic,
    then energy where it has none).

    InputError, with a place, where nothing can be completed so.
    """
    cascade = load_cascade(doc.data["cascade"], beside=doc.file, where=doc.where("cascade"))
    arch = arch or load_architecture(doc.data["arch"], beside=doc.file, where=doc.where("arch"))
    wanted = doc.data.get("minimise") or DEFAULT
    goal = Goal(tuple([wanted] if isinstance(wanted, str) else wanted))
    groups = doc.data.get("groups")
    paths: list[tuple[Any, ...]] = [("groups", i) for i in range(len(groups))] if isinstance(groups, list) else [()]
    raws = groups if isinstance(groups, list) else [doc.data]
    if not isinstance(groups, list) and not any(doc.data.get(x, AUTO) != AUTO for x in SECTIONS):
        return best_mapping(cascade, arch, extents, goal.objectives, seconds=seconds)
    scene = Scene(cascade, arch, main_einsums(cascade), dict(extents))
    tally = Tally()
    points = [
        _Completion(scene, goal, doc, path, dict(raw), dict(sets or {})).run(tally)
        for path, raw in zip(paths, raws, strict=True)
    ]
    metrics = points[0].metrics
    for p in points[1:]:
        metrics = added(metrics, p.metrics)
    made = [Candidates((group_of(p.fields, cascade, arch),), ()) for p in points]
    name = str(doc.data.get("name") or doc.file)
    design = design_of(name, cascade, arch, made, f"{name}, completed by {', '.join(goal.objectives)}")
    values = dict(zip(goal.objectives, goal.score(metrics)[1:], strict=True))
    point = Point(design, mapping_of([p.fields for p in points]), values)
    score = goal.score(metrics)[1:]
    return Found(point, goal.objectives, score, score[0], True, tally.space, tally.evaluated, dict(tally.pruned))


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
class _Completion:
    """One group of a partial mapping file."""

    scene: Scene
    goal: Goal
    doc: Document
    path: tuple[Any, ...]
    raw: dict[str, Any]
    sets: dict[str, int]

    def run(self, tally: Tally) -> GroupPoint:
        self.refuse()
        frames = list(self.frames())
        search = GroupSearch(
            self.scene, Bounds(self.scene), self.goal, frames[0].members, tally, lambda _search: None, given=frames,
            said=frames[0].schedule is not None,
        )  # fmt: skip
        found = search.run(Best(self.goal))
        if not found:
            problem = f" ({search.problem.message})" if search.problem else ""
            raise InputError(
                f"nothing completes this group: no unit, layout or place that is left open is legal and fits{problem}",
                self.where(), expected="more parts `auto`, or other fixed ones",
            )  # fmt: skip
        return found[0]

    def where(self, *inner: Any) -> Where:
        return self.doc.where(*self.path, *inner)

    def refuse(self) -> None:
        for name in ("variants", "use", "reserve"):
            if name in self.raw:
                raise InputError(
                    f"{name!r} beside parts that are `auto`", self.where(name), expected="one or the other"
                )
        if self.raw.get("interleave") is False:
            raise InputError("`interleave: false` beside parts that are `auto`", self.where("interleave"),
                             expected="tiles in flight, or everything given")  # fmt: skip
        keep = self.raw.get("keep")
        for level, held in keep.items() if isinstance(keep, Mapping) else ():
            if level not in self.scene.arch.levels:
                raise InputError(f"unknown level {level!r}", self.where("keep", level),
                                 expected=f"one of {listed(self.scene.arch.levels)}")  # fmt: skip
            for tensor, loop in held.items() if isinstance(held, Mapping) else ():
                if isinstance(loop, Mapping):
                    raise InputError(f"details of {tensor!r} beside parts that are `auto`",
                                     self.where("keep", level, tensor), expected="a loop, or `auto`")  # fmt: skip
        for key, said in (self.raw.get("bind") or {}).items() if self.raw.get("bind") != AUTO else ():
            for name in (n.strip() for n in key.split(",")):
                if name not in self.scene.einsums:
                    raise InputError(f"unknown Einsum {name!r}", self.where("bind", key),
                                     expected=f"one of {listed(self.scene.einsums)}")  # fmt: skip
            unit = said.get("unit", AUTO) if isinstance(said, Mapping) else AUTO
            if unit != AUTO and unit not in self.scene.arch.units:
                raise InputError(f"unknown unit {unit!r}", self.where("bind", key, "unit"),
                                 expected=f"one of {listed(self.scene.arch.units)}, or `auto`")  # fmt: skip

    def frames(self) -> Iterator[Given]:
        """Every frame that the file leaves: sizes of parts that are no shared loops, orders of loops."""
        bind = self.raw.get("bind", AUTO)
        said = {} if bind == AUTO else {tuple(n.strip() for n in key.split(",")): v for key, v in bind.items()}
        named = {n for nest in said for n in nest}
        if self.path and not named:
            raise InputError(
                "which Einsums a group has must be said", self.where(), expected='`bind: {"QK, GM": auto}`'
            )
        members = tuple(n for n in self.scene.einsums if not self.path or n in named)
        spread = {nest: v if isinstance(v, Mapping) else {} for nest, v in said.items()}
        apart = [(n,) for nest in said for n in nest if not isinstance(said[nest], Mapping)]
        joint = [nest for nest in said if isinstance(said[nest], Mapping)]
        nests = sorted([*joint, *apart, *((n,) for n in members if n not in named)], key=lambda x: members.index(x[0]))
        parts, fixed, tile = self.tiles()
        keep = self.raw.get("keep", AUTO)
        schedule = self.raw.get("schedule", AUTO)
        more = {k: self.raw[k] for k in (("name", "budget") if self.path else ("budget",)) if k in self.raw}
        shell = Given(members, tuple(nests), parts, ((),), ({}, 1), spread, None if keep == AUTO else keep,
                      None if schedule == AUTO else tuple(map(tuple, schedule)), more, tile)  # fmt: skip
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
        said = self.raw.get("tile", {})
        said = {} if said == AUTO else said
        parts = {r: tuple(v) for r, v in said.items() if isinstance(v, list) and v and isinstance(v[0], str)}
        inner = {p for ps in parts.values() for p in ps}
        for rank in parts:
            if rank not in self.scene.cascade.ranks and rank not in inner:
                raise InputError(f"unknown rank {rank!r}", self.where("tile", rank),
                                 expected=f"one of {listed(self.scene.cascade.ranks)}")  # fmt: skip
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
                raise InputError(f"no sizes of the parts of {rank!r} divide it", self.where("tile", rank))
            found = grown
            if len(found) > _MOST:
                raise InputError(f"more than {_MOST} combinations of tile sizes", self.where("tile"),
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
                sizes = self.options(p, said[p])
                if sizes is None:
                    sizes = tile_sizes(left, left, few=few) if ragged else divisors(left)
                else:
                    sizes = [n for n in sizes if left % n == 0] or (sizes if ragged else [])
                grown += [{p: n, **one} for n in sizes]
            found = grown
        return found

    def options(self, part: str, size: Any) -> Sequence[int] | None:
        """The sizes that are said; None if they are to be found."""
        if isinstance(size, int) and not isinstance(size, bool):
            return (size,)
        if isinstance(size, list):
            return tuple(size)
        if size in (AUTO, "any", "max"):
            return None
        raise InputError(f"tile {part!r} is {size!r} beside parts that are `auto`", self.where("tile", part),
                         expected="a number, a list of numbers, or `auto`")  # fmt: skip

    def orders(self, shell: Given) -> list[tuple[str, ...]]:
        """The shared loops that are given, or every order of those that may be shared: of a rank in parts all but the
        innermost."""
        loops = self.raw.get("loops", AUTO)
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
        known = {*self.scene.extents, *(p for ps in shell.parts.values() for p in ps)}
        if rank not in known:
            raise InputError(f"unknown rank {rank!r}", self.where("loops"), expected=f"one of {listed(known)}")
        return [x for r in self.scene.split([rank]) for x in shell.leaves(r)] if rank in self.scene.extents else [
            *shell.leaves(rank)
        ]  # fmt: skip


__all__ = ["Given", "complete", "is_open", "is_partial"]
