"""A mapped group as tasks: which actors there are, how long each firing takes, and what it waits for.

The meaning is that of the closed form (:mod:`fusemodel.model`): the same plan, the same movements, the same counts.
What the closed form takes for granted is spelled out here: that a value is made before it is used, that a tile's place
is free before it is written again, that a transfer has the level to itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from fusemodel.cascade.ir import Apply, Einsum, Extent, Number, RankValue, reads
from fusemodel.mapping.check import innermost, main_einsums
from fusemodel.mapping.spec import ALL, Keep
from fusemodel.model.cost import EinsumCost
from fusemodel.model.domain import count_union
from fusemodel.model.frame import Frame, ceil_div, frames_of, product, settled
from fusemodel.model.plan import Move, Plan
from fusemodel.model.space import Space, space_of
from fusemodel.model.tiles import Chosen
from fusemodel.simulate.bring import Bring, brings, words_of
from fusemodel.simulate.lags import with_lags
from fusemodel.simulate.tables import table_of
from fusemodel.simulate.tasks import (
    BUFFER,
    DEPENDENCE,
    ENDED,
    INPUT,
    ISSUED,
    VALID,
    Actor,
    Buffer,
    Edge,
    Table,
    Tasks,
    strides,
    uniform,
)

#: Transfers are served in parts of at least so many cycles, and at most so many parts.
PART_CYCLES, MAX_PARTS = 64.0, 16


def lower(chosen: Chosen, extents: Mapping[str, int], *, asap: bool = False, copies: int = 1) -> Tasks:
    """The tasks of a group with its sizes. ``asap``: units take whatever is ready, not what the schedule says;
    ``copies``: at least so many of every kept tile, whether they fit or not."""
    return _Lowering(chosen, extents, asap, copies).tasks()


@dataclass
class _Lowering:
    chosen: Chosen
    extents: Mapping[str, int]
    asap: bool
    copies: int
    actors: list[Actor] = field(default_factory=list)
    edges: dict[int, list[Edge]] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.plan: Plan = settled(self.chosen.plan)
        self.sizes = self.chosen.sizes
        self.group, self.cascade, self.arch = self.plan.group, self.plan.cascade, self.plan.arch
        self.frames: dict[str, Frame] = frames_of(self.plan, self.extents)
        self.inside: dict[str, Einsum] = {n: e for n, e in main_einsums(self.cascade).items() if n in self.plan.einsums}
        self.shared = tuple(x for x in self.group.loops if self.sizes[x] > 1)
        self.loops = (*self.shared, *self._common_own())
        self.space: Space = space_of(self.plan, self.frames, self.sizes, self.extents, [])
        self.timed = {n for n, level in self.arch.levels.items() if level.bandwidth_bytes_per_s}
        self.of: dict[str, int] = {}  # the actor of each Einsum
        self.at_level: dict[tuple[str, str], list[int]] = {}  # transfers that put a tensor into a level
        self.leaving: dict[tuple[str, str], list[int]] = {}  # transfers that take it out of one
        self.untimed: list[tuple[str, str, bool, float]] = []
        self.serves: dict[int, frozenset[object]] = {}  # the accesses that a load is for

    # Loops

    def _own(self, name: str) -> tuple[str, ...]:
        return tuple(x for x in self.plan.einsums[name].temporal if self.sizes[x] > 1 and x not in self.group.loops)

    def _common_own(self) -> tuple[str, ...]:
        """Inner loops that every Einsum runs outermost, in the same order, with nothing completed over them: the group
        is as good as fused in them."""
        found: list[str] = []
        each = [self._own(n) for n in self.inside]
        reduced = {x for e in self.plan.einsums.values() for x in e.reduced}
        for column in zip(*each, strict=False):
            leaf = column[0]
            if any(x != leaf for x in column) or leaf in reduced or not self._same_step(leaf):
                break
            found.append(leaf)
        return tuple(found) if len(self.inside) > 1 else ()

    def _same_step(self, leaf: str) -> bool:
        """Whether whatever the group makes in a step of a loop is read in that step, or as the state it leaves."""
        for einsum in self.inside.values():
            for access in reads(einsum):
                if access.tensor not in self.inside:
                    continue
                written = self.inside[access.tensor].target
                ranks = self.cascade.full_ranks(access.tensor)
                for rank, index, made in zip(ranks, access.indices, written.indices, strict=True):
                    stepped = rank in self.cascade.tensors[access.tensor].iterative
                    if leaf in self.group.leaves(rank, self.cascade) and index != made and not stepped:
                        return False
        return True

    def lowered(self, name: str) -> tuple[str, ...]:
        """The lowered loops of an Einsum."""
        temporal = set(self.plan.einsums[name].temporal)
        return tuple(x for x in self.loops if x in temporal)

    # Actors

    def tasks(self) -> Tasks:
        units = tuple(dict.fromkeys(e.unit for e in self.plan.einsums.values()))
        stage = {n: i for i, names in enumerate(self.group.stages) for n in names}
        computed = list(self.plan.reductions)  # each after those it is computed from
        place = {n: i for i, n in enumerate(sorted(stage, key=lambda n: (stage[n], computed.index(n))))}
        for name in self.inside:
            self._einsum(name, units.index(self.plan.einsums[name].unit), stage[name], place[name])
        moved = [m for b in brings(self.plan, self.frames, self.sizes, self.space, []) if (m := self._transfer(b))]
        for me, bring, stream in moved:
            self._linked(me, bring, stream)
        for name, einsum in self.inside.items():
            self._reads(name, einsum)
        self._spaces()
        actors = [replace(a, edges=tuple(sorted(self.edges.get(i, ()), key=lambda e: (e.reason == BUFFER, e.reason))))
                  for i, a in enumerate(self.actors)]  # fmt: skip
        levels = tuple(x for x in self.arch.levels if x in self.timed)
        word = self.arch.word_bytes * self.arch.clock_hz
        per_word = tuple(word / (self.arch.levels[x].bandwidth_bytes_per_s or 1) for x in levels)
        tasks = Tasks(
            self.group.name, self.loops, tuple(self.sizes[x] for x in self.loops), units, levels, per_word,
            tuple(actors), tuple(self.buffers), len(self.group.stages), not self.asap, tuple(self.untimed),
            tuple(dict.fromkeys(self.notes)),
        )  # fmt: skip
        return with_lags(tasks, self._registers(), interleave=self.group.interleave)

    def _add(self, actor: Actor) -> int:
        self.actors.append(actor)
        return len(self.actors) - 1

    def _einsum(self, name: str, unit: int, stage: int, place: int) -> None:
        plan, cost = self.plan.einsums[name], self.chosen.cost.einsums[name]
        loops = self.lowered(name)
        sizes = tuple(self.sizes[x] for x in loops)
        length = 0.0
        dimensions = self.arch.units[plan.unit].shape
        for dimension, leaves in self.group.bindings[name].spatial.items():
            over = [x for x in leaves if x in plan.reduced]
            if over:
                length = max(length, float(min(product(over, self.sizes), dimensions[dimension])))
        self.of[name] = self._add(
            Actor(name, "einsum", name, name, loops, sizes, self._cycles(name, cost, loops), unit, drain=length,
                  stage=stage, place=place, turn=self._turn(name, loops))
        )  # fmt: skip

    def _turn(self, name: str, loops: Sequence[str]) -> tuple[int, tuple[int, ...]]:
        """The step of all loops together at which an Einsum fires: at the last of those it lacks, if something it
        uses runs in them, else at the first."""
        every = dict(zip(self.loops, strides([self.sizes[x] for x in self.loops]), strict=True))
        above = self._above(name, set())
        late = {x for n in above for x in self.lowered(n)} - set(loops)
        constant = sum(every[x] * (self.sizes[x] - 1) for x in late)
        return constant, tuple(every[x] for x in loops)

    def _above(self, name: str, seen: set[str]) -> set[str]:
        for access in reads(self.inside[name]):
            if access.tensor in self.inside and access.tensor not in seen and access.tensor != name:
                seen.add(access.tensor)
                self._above(access.tensor, seen)
        return seen

    def _cycles(self, name: str, cost: EinsumCost, loops: tuple[str, ...]) -> Table:
        plan, frame = self.plan.einsums[name], self.frames[name]
        firings = product(loops, self.sizes)
        mean = uniform(float(cost.cycles) / firings)
        last = tuple(x for x in loops if x in plan.reduced)
        folds = prod(ceil_div(product(x, self.sizes), n) for n, x in plan.folds)
        kept = [(n, [x for x in leaves if x not in plan.reduced]) for n, leaves in plan.folds]
        folds_out = prod(ceil_div(product(x, self.sizes), n) for n, x in kept)
        inner = [x for x in plan.temporal if x not in loops]
        inner_out = [x for x in inner if x not in plan.reduced]
        per, per_out = folds * plan.cycles_per_point, folds_out * plan.cycles_per_output
        if not frame.conditional:
            if not per_out or not last:
                return mean
            steps = product(inner, self.sizes) * per
            once = product(inner_out, self.sizes) * per_out
            return _at_last(loops, last, self.sizes, float(steps), float(once))
        every = frame.with_quotients(self.sizes)
        if per_out and last:
            self.notes.append(f"{name}: every task takes the mean of its cycles")
            return mean

        def counted(pieces) -> float | None:
            turns, exact = count_union(pieces, inner, every, apart=True)
            cycles = turns * per
            if per_out:
                outputs, known = count_union(pieces, inner_out, every, apart=True)
                cycles, exact = cycles + outputs * per_out, exact and known
            return float(cycles) if exact else None

        pieces = [frame.on_leaves(p, self.sizes) for p in frame.pieces]
        table = table_of(pieces, loops, every, counted)
        if table is None:
            self.notes.append(f"{name}: every task takes the mean of its cycles")
        return table or mean

    # Transfers

    def _transfer(self, bring: Bring) -> tuple[int, Bring, bool] | None:
        """An actor for a movement that takes time, and whether it goes along with single tasks; the rest is only
        counted."""
        shares: dict[str, float] = {}
        for level, _, share in bring.flows:
            if level in self.timed and share:
                shares[level] = shares.get(level, 0.0) + share
        if not shares or not bring.words:
            self.untimed += [(level, bring.tensor, write, share * bring.words) for level, write, share in bring.flows]
            return None
        lowered = tuple(x for x in bring.loops if x in self.loops)
        whole = all(x in self.loops for x in bring.loops)
        stream = bring.source is None or bring.sink is None or bring.inside or not whole
        pieces = () if stream else self._pieces(bring, lowered)
        table, _ = words_of(bring, self.frames, self.sizes, lowered, pieces)
        loops = (*lowered, *pieces)
        inward = bring.kind in ("fill", "read", "partial")
        verb = "load" if inward else "store"
        where = bring.sink or f"for {bring.einsums[0]}"
        label = f"{verb} {bring.tensor}" + (f" {where}" if bring.sink is None or len(self.arch.levels) > 2 else "")
        turn = self._plain_turn(loops)
        sizes = tuple(self.sizes[x] for x in loops)
        if not (inward and stream) and (parts := self._parts(table, shares)) > 1:
            table, turn = _divided(table, parts), (turn[0], (*turn[1], 0))
            loops, sizes = (*loops, f"part of {label}"), (*sizes, parts)
        me = self._add(
            Actor(label, verb, bring.einsums[0], bring.tensor, loops, sizes, table, shares=shares, flows=bring.flows,
                  turn=turn, tiles=tuple(m.tile for m in bring.moves))
        )  # fmt: skip
        self.serves[me] = frozenset(_access(m) for m in bring.moves) if inward else frozenset()
        if bring.sink and not (inward and stream):
            self.at_level.setdefault((bring.tensor, bring.sink), []).append(me)
        if bring.source:
            self.leaving.setdefault((bring.tensor, bring.source), []).append(me)
        return me, bring, stream

    def _linked(self, me: int, bring: Bring, stream: bool) -> None:
        if bring.kind == "write":
            self._stored(me, bring, stream)
        elif stream:
            self._streamed_in(me, bring)
        else:
            self._loaded(me, bring)

    def _parts(self, table: Table, shares: Mapping[str, float]) -> int:
        """In how many parts a transfer is served, so that one that is long does not keep others from a level."""
        longest = 0.0
        for level, share in shares.items():
            bandwidth = self.arch.levels[level].bandwidth_bytes_per_s or 1.0
            words = share * float(table.values.max())
            longest = max(longest, words * self.arch.word_bytes * self.arch.clock_hz / bandwidth)
        return max(1, min(MAX_PARTS, int(longest // PART_CYCLES)))

    def _plain_turn(self, loops: Sequence[str]) -> tuple[int, tuple[int, ...]]:
        every = dict(zip(self.loops, strides([self.sizes[x] for x in self.loops]), strict=True))
        return 0, tuple(every[x] for x in loops)

    def _pieces(self, bring: Bring, lowered: tuple[str, ...]) -> tuple[str, ...]:
        """Loops inside a tile whose steps each use a part of it of their own."""
        found: list[str] = []
        for x in self.loops:
            if x in lowered or any(x in m.tile.outside for m in bring.moves):
                continue
            parts = [d for m in bring.moves for d in m.tile.dims if x in d.all_leaves]
            each = all(any(x in d.all_leaves for d in m.tile.dims) for m in bring.moves)
            simple = all(len(d.leaves) == 1 and not d.data and not d.iterative for d in parts)
            if each and simple and all(x in self.lowered(e) for e in bring.einsums):
                found.append(x)
        order = [x for x in self.loops if x in found]
        first = min((self.loops.index(x) for x in order), default=0)
        return tuple(order) if all(self.loops.index(x) < first for x in lowered) else ()

    def _streamed_in(self, me: int, bring: Bring) -> None:
        """Operands that pass a level by flow in while the Einsum runs, at most one task ahead."""
        reader = self.of[bring.einsums[0]]
        self._wait(me, reader, ISSUED, INPUT, lacking="first", slack=1)
        for name in bring.einsums:
            self._wait(self.of[name], me, ISSUED, INPUT)
            actor = self.actors[self.of[name]]
            self.actors[self.of[name]] = replace(actor, streams=(*actor.streams, me))
        if bring.kind == "partial":
            self._after_store(me, bring)
        elif bring.source:
            self._from(me, bring.tensor, bring.source)

    def _loaded(self, me: int, bring: Bring) -> None:
        """A tile brought to where it is kept: as soon as there is room, which :meth:`_spaces` sees to."""
        if bring.kind == "partial":
            self._after_store(me, bring)
            self._wait(self.of[bring.einsums[0]], me, VALID, INPUT)
        elif bring.source:
            self._from(me, bring.tensor, bring.source)

    def _after_store(self, me: int, bring: Bring) -> None:
        """What comes back was stored when the tile was last here."""
        used = {x for d in bring.moves[0].tile.dims for x in d.all_leaves}
        again = [x for x in self.actors[me].loops if x not in used]
        for other in self.at_level.get((bring.tensor, bring.source or ""), []):
            if self.actors[other].kind == "store" and again:
                self._wait(me, other, ENDED, DEPENDENCE, back={again[-1]: 1})

    def _stored(self, me: int, bring: Bring, stream: bool) -> None:
        """A result on its way out: when it is complete; a task's own result has room for two."""
        made = self.of[bring.einsums[0]]
        self._wait(me, made, VALID, DEPENDENCE)
        order = list(self.arch.levels)
        for level in order[order.index(bring.source) :] if bring.source else ():
            put = [a for a in self.at_level.get((bring.tensor, level), []) if self.actors[a].kind == "store"]
            for other in put:
                self._wait(me, other, VALID, DEPENDENCE)
            if put:
                break
        if stream:
            self._wait(made, me, ENDED, BUFFER, before=2)

    def _from(self, me: int, tensor: str, level: str) -> None:
        """Whoever takes a tensor from a level waits for those that put it there."""
        order = list(self.arch.levels)
        while True:
            put = [a for a in self.at_level.get((tensor, level), []) if a != me and self._same_tile(a, me)]
            for other in put:
                self._wait(me, other, VALID, INPUT)
            if tensor in self.of:
                self._wait(me, self.of[tensor], VALID, DEPENDENCE)
            outer = order.index(level) - 1
            if put or outer < 0:
                return
            level = order[outer]

    def _same_tile(self, a: int, b: int) -> bool:
        """Whether two transfers are for the same accesses; what an Einsum makes is for all."""
        return self.actors[a].kind == "store" or bool(self.serves[a] & self.serves[b])

    # Dependences between Einsums

    def _reads(self, name: str, einsum: Einsum) -> None:
        me = self.of[name]
        streamed = {s for stream in self.actors[me].streams for s in self.serves[stream]}
        for move in self.plan.moves:
            if move.key[3:] == ("read", name) and _access(move) not in streamed:
                self._from_kept(me, move)
        for access in dict.fromkeys(reads(einsum)):
            if access.tensor not in self.of:
                continue
            other = self.of[access.tensor]
            back, there = self._step_of(access)
            if not there or (other == me and not back):
                continue
            self._wait(me, other, VALID, DEPENDENCE, back=back)

    def _from_kept(self, me: int, move: Move) -> None:
        order = list(self.arch.levels)
        for at in reversed(order[: order.index(str(move.source)) + 1]):
            put = [
                a for a in self.at_level.get((move.tensor, at), [])
                if self.actors[a].kind == "load" and _access(move) in self.serves[a]
            ]  # fmt: skip
            for other in put:
                self._wait(me, other, VALID, INPUT)
            if put:
                return

    def _step_of(self, access) -> tuple[dict[str, int], bool]:
        """By how many steps an access looks back along an iterative rank, and whether anything is made for it."""
        tensor = self.cascade.tensors[access.tensor]
        for rank, index in zip(self.cascade.full_ranks(access.tensor), access.indices, strict=True):
            if rank not in tensor.iterative:
                continue
            leaves = [x for x in self.group.leaves(rank, self.cascade) if x in self.lowered(access.tensor)]
            match index:
                case Number(0):
                    return {}, False
                case RankValue():
                    return ({leaves[-1]: 1}, True) if leaves else ({}, False)
                case Extent():
                    return {}, True
                case Apply("+", (RankValue(), Number(1))):
                    return {}, True
        return {}, True

    def _wait(
        self, me: int, other: int, event: int, reason: int, *, lacking: str = "last", slack: int = 0,
        back: Mapping[str, int] | None = None, before: int = 0, last: frozenset[str] = frozenset(), tile: str = "",
    ) -> None:  # fmt: skip
        """An edge: steps of loops that both have are the same (``back``: less), those that only the other has are at
        their last (or first), as are those in ``last``; ``before`` counts firings of the other back."""
        x, y = self.actors[me], self.actors[other]
        weight = dict(zip(y.loops, strides(y.sizes), strict=True))
        parts = y.sizes[-1] if y.loops and y.loops[-1] not in self.sizes else 1
        constant = -before * parts
        for loop, n in zip(y.loops, y.sizes, strict=True):
            if loop not in x.loops or loop in last:
                constant += weight[loop] * (n - 1) if lacking == "last" else 0
        for loop, steps in (back or {}).items():
            constant -= weight.get(loop, 0) * steps
        coefficients = tuple(0 if loop in last else weight.get(loop, 0) for loop in x.loops)
        edge = Edge(other, event, constant, coefficients, slack, reason, tile)
        if edge not in self.edges.setdefault(me, []):
            self.edges[me].append(edge)

    # Space

    def _spaces(self) -> None:
        """Nothing is written where something is still wanted."""
        shared: dict[tuple[str, str], list[Keep]] = {}
        for keep in self.group.keeps:
            if keep.share:
                shared.setdefault((keep.level, keep.share), []).append(keep)
        for keep in self.group.keeps:
            together = shared.get((keep.level, keep.share or ""), [keep])
            if self.arch.levels[keep.level].size_bytes is None and keep.level not in self.group.budget_bytes:
                continue
            if keep.under == ALL or innermost(keep.under, self.group, self.cascade) in self.group.loops:
                self._tile_space(keep, [k.tensor for k in together])
        kept = {k.tensor for k in self.group.keeps}
        for name in self.inside:
            if name not in kept:
                self._register_space(name)
            if self.cascade.tensors[name].iterative:
                self._in_place(name, [max(k.copies, self.copies) for k in self.group.keeps if k.tensor == name])

    def _generation(self, keep: Keep) -> tuple[str, ...]:
        """The loops whose steps put another tile in the place of one. A state stays from step to step, with all that
        the loops inside the stepped one make."""
        if keep.under == ALL:
            return ()
        loop = innermost(keep.under, self.group, self.cascade)
        found = [x for x in self.shared if self.group.loops.index(x) <= self.group.loops.index(loop)]
        used = {x for r in self.cascade.full_ranks(keep.tensor) for x in self.group.leaves(r, self.cascade)}
        used |= {x for m in self.plan.moves if m.tensor == keep.tensor for d in m.tile.dims for x in d.all_leaves}
        while found and found[-1] not in used:
            found.pop()
        stepped = [x for r in self.cascade.tensors[keep.tensor].iterative for x in self.group.leaves(r, self.cascade)]
        for i, x in enumerate(found):
            if x in stepped:
                if len(found) > i + 1:
                    self.notes.append(
                        f"{keep.tensor} lives from step to step of {x}: {keep.level} holds it for every step of "
                        f"{', '.join(found[i + 1 :])}, not for one"
                    )
                return tuple(found[:i])
        return tuple(found)

    def _tile_space(self, keep: Keep, tensors: Sequence[str]) -> None:
        generation = self._generation(keep)
        writers = [a for a in self.at_level.get((keep.tensor, keep.level), []) if self.actors[a].kind == "load"]
        if keep.tensor in self.of:
            writers.append(self.of[keep.tensor])
        words = float(self.space.footprint.get(keep.level, {}).get(keep.tensor, 0.0)) / keep.copies
        copies = max(keep.copies, self.copies)
        for me in writers:
            loops = self.actors[me].loops
            size = dict(zip(loops, self.actors[me].sizes, strict=True))
            inner = [x for x in loops if x not in generation]
            pieces = copies * product(inner, size)
            places = copies * product([x for x in inner if self._own_place(keep.tensor, x, me)], size)
            tile = f"{keep.tensor} in {keep.level}"
            if self.actors[me].kind == "load":
                word = float(self.actors[me].amount.values.max())
            else:
                word = words * copies / places
            self.buffers.append(Buffer(tile, keep.level, keep.tensor, me, pieces, places, word))
            if not any(x in generation for x in loops):
                continue  # there is one, for good
            for other in self._readers(tensors, keep.level, me):
                y = self.actors[other]
                last = frozenset(x for x in y.loops if x not in generation and not self._own_place(keep.tensor, x, me))
                self._wait(me, other, ENDED, BUFFER, slack=pieces, last=last, tile=tile)

    def _own_place(self, tensor: str, loop: str, writer: int) -> bool:
        """Whether each step of a loop has a place of its own in a tile."""
        if loop not in self.actors[writer].loops:
            return False
        if loop not in self.sizes:
            return True  # a part of a transfer
        iterative = self.cascade.tensors[tensor].iterative
        return any(
            loop in self.group.leaves(r, self.cascade) for r in self.cascade.full_ranks(tensor) if r not in iterative
        )

    def _readers(self, tensors: Sequence[str], level: str, writer: int) -> list[int]:
        """Who takes some tensors from a level, or out of it; from a tile that was loaded, those that it is for."""
        found: dict[int, None] = {}
        loaded = self.actors[writer].kind == "load"
        for move in self.plan.moves:
            read = move.tensor in tensors and move.source == level and move.key[3] == "read"
            if read and (not loaded or _access(move) in self.serves[writer]):
                found[self.of[str(move.key[4])]] = None
        for name, einsum in self.inside.items():
            if any(a.tensor in tensors and a.tensor in self.inside for a in reads(einsum)):
                found[self.of[name]] = None
        for tensor in tensors:
            for other in self.leaving.get((tensor, level), []):
                if not loaded or self._same_tile(other, writer):
                    found[other] = None
        return [a for a in found if a != writer]

    def _register_space(self, name: str) -> None:
        """Values passed on in registers: so many tiles are in flight (see :func:`with_lags`)."""
        readers = [n for n, e in self.inside.items() if n != name and any(a.tensor == name for a in reads(e))]
        if not readers or self.cascade.tensors[name].iterative or not self.lowered(name):
            return
        me = self.of[name]
        leaves = {x for r in self.cascade.full_ranks(name) for x in self.group.leaves(r, self.cascade)}
        words = float(product(leaves - set(self.lowered(name)), self.sizes))
        tile = f"{name} in registers"
        self.buffers.append(Buffer(tile, "", name, me, 2, 2, words))
        for reader in readers:
            self._wait(me, self.of[reader], ENDED, BUFFER, slack=2, tile=tile)

    def _in_place(self, name: str, copies: Sequence[int]) -> None:
        """A state is overwritten step by step: its readers of the step before come first."""
        after = self._made_from(name, set())
        before = {n for n, e in self.inside.items() for a in reads(e) if a.tensor == name and self._step_of(a)[0]}
        # what needs the old value and the new one finds both
        me, versions = self.of[name], max([*copies, 1]) + bool(after & before)
        leaves = [
            x for r in self.cascade.tensors[name].iterative for x in self.group.leaves(r, self.cascade)
            if x in self.lowered(name)
        ]  # fmt: skip
        if not leaves:
            return
        tile = f"{name}, step by step"
        first = self.loops.index(leaves[0])
        for reader, einsum in self.inside.items():
            for access in dict.fromkeys(reads(einsum)):
                if access.tensor != name or reader == name:
                    continue
                back, there = self._step_of(access)
                ends = leaves[0] not in self.lowered(reader)
                if not there and not back:
                    continue
                if not ends:
                    steps = {leaves[-1]: versions - 1 if back else versions}
                    self._wait(me, self.of[reader], ENDED, BUFFER, back=steps, tile=tile)
                elif name not in {k.tensor for k in self.group.keeps}:
                    outside = [x for x in self.lowered(name) if self.loops.index(x) < first]
                    inner = [x for x in self.lowered(name) if x not in outside]
                    if outside:
                        last = frozenset(
                            x for x in self.lowered(reader) if x not in outside and not self._own_place(name, x, me)
                        )
                        slack = product(inner, self.sizes)
                        self._wait(me, self.of[reader], ENDED, BUFFER, slack=slack, last=last, tile=tile)

    def _made_from(self, name: str, found: set[str]) -> set[str]:
        """What is computed, in one step, from a value of that step."""
        for reader, einsum in self.inside.items():
            for access in reads(einsum):
                if access.tensor == name and reader not in found and not self._step_of(access)[0]:
                    found.add(reader)
                    self._made_from(reader, found)
        return found

    def _registers(self) -> float | None:
        """Words that the registers of the group's units hold; None where the architecture does not say."""
        units = [self.arch.units[u] for u in {e.unit for e in self.plan.einsums.values()}]
        if not all(u.registers for u in units):
            return None
        return float(sum(u.size * u.registers.words for u in units if u.registers))


def _access(move: Move) -> tuple[object, ...]:
    """What identifies an access of an Einsum."""
    return move.tile.einsum, move.tensor, tuple(d.index for d in move.tile.dims)


def _divided(table: Table, parts: int) -> Table:
    """Amounts of the parts of a transfer."""
    part = table.scaled(1 / parts)
    return Table(part.values, tuple((*c, 0) for c in part.coefficients), part.constants, part.least)


def _at_last(
    loops: tuple[str, ...], last: tuple[str, ...], sizes: Mapping[str, int], steps: float, once: float
) -> Table:
    """``steps`` at every step, and ``once`` more where all of ``last`` are at their last."""
    import numpy as np

    form = tuple(int(x in last) for x in loops)
    most = sum(sizes[x] - 1 for x in last)
    return Table(np.array([steps, steps + once]), (form,), (-(most - 1),), (0,))
