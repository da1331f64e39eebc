"""What must hold for points and elements to be present, as conditions on coordinates (and on data where it decides).

A point is absent where the Einsum's condition fails, where an index leaves its tensor, where a ragged split has no
element, and where an operand is absent for one of these reasons. A reduction ignores absent points; what fails for a
whole fiber leaves no result (DESIGN section 4, rules 3, 4 and 6b). What follows an absent step of an iterative tensor
is absent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import product

from fusemodel.cascade.graph import components, offset_from
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    accesses,
    is_start,
    iteration_ranks,
    rank_values,
    reads,
    reduced_ranks,
    substitute,
    target_ranks,
    walk,
)
from fusemodel.model.identity import Identity

#: The operator of a condition that holds at every step before a given one: (that step, the variable that stands for
#: the steps, written as an extent, and the condition on it).
THROUGHOUT = "throughout"
#: Alternatives of ``coalesce`` written out; of more one condition is made, which is the same but for reductions.
_MOST_ALTERNATIVES = 64
#: A condition that nothing meets.
NEVER = Apply("<", (Number(1), Number(0)))


class Conditions:
    """The conditions that points, and the elements of accesses, of a cascade's Einsums must meet to be present.

    ``of`` has them for each Einsum, over its own ranks. Of some Einsums that may be too little: unless the conditions
    in ``doubts`` hold everywhere, more points may be absent.
    """

    def __init__(self, cascade: Cascade, einsums: Sequence[Einsum]) -> None:
        self.cascade = cascade
        self.of: dict[str, tuple[Expr, ...]] = {}
        self.doubts: dict[str, tuple[Expr, ...]] = {}
        self._einsums = {e.name: e for e in einsums}
        self._starts = [e for e in cascade.explicit if is_start(e, cascade.tensors[e.name])]
        #: Of a tensor's elements, over its ranks (``_started``: of those that a start makes).
        self._on_tensor: dict[str, tuple[Expr, ...]] = {}
        self._started: dict[str, tuple[Expr, ...]] = {}
        self._computed: dict[str, Expr] = {}
        self._unsure: dict[str, tuple[Expr, ...]] = {}  # doubts of what reads a tensor
        made = {n: {a.tensor for a in reads(e) if a.tensor in self._einsums} for n, e in self._einsums.items()}
        for start in self._starts:
            if start.name in made:
                made[start.name] |= {a.tensor for a in reads(start) if a.tensor in self._einsums}
        for group in components(list(self._einsums), made):
            if len(group) == 1 and group[0] not in made[group[0]] and not self._iterative(group[0]):
                self._settle(group[0], self._own(self._einsums[group[0]], ()))
            else:
                self._recurrence(group)

    def _iterative(self, tensor: str) -> frozenset[str]:
        return self.cascade.tensors[tensor].iterative

    def _settle(self, name: str, found: Sequence[Expr]) -> None:
        """Take down the conditions of an Einsum, and what they mean for the tensor that it makes."""
        einsum = self._einsums[name]
        self.of[name] = tuple(dict.fromkeys(found))
        self._doubt([name], [c for a in reads(einsum) for c in self._unsure.get(a.tensor, ())])
        self._unsure[name] = self.doubts.get(name, ())
        if self._iterative(name) or not all(isinstance(i, RankValue) for i in einsum.target.indices):
            return
        # a reduction ignores points, but of a fiber that is absent as a whole there is no result
        reduced = set(reduced_ranks(einsum))
        self._on_tensor[name] = self._whole(name, self.of[name])
        if einsum.selection:  # over fewer points than asked for, the last ones are absent
            self._unsure[name] += tuple(c for c in self.of[name] if reduced & set(rank_values(c)))
        body = self.resolved(einsum.body)
        plain = not any(isinstance(e, Access) or (isinstance(e, Apply) and e.op == "coalesce") for e in walk(body))
        own = set(target_ranks(einsum))
        if plain and own - set(self.cascade.batch) <= set(rank_values(body)) <= own:
            self._computed[name] = body

    def _doubt(self, names: Iterable[str], conditions: Iterable[Expr]) -> None:
        conditions = tuple(conditions)
        for name in names:
            if conditions:
                self.doubts[name] = tuple(dict.fromkeys((*self.doubts.get(name, ()), *conditions)))

    def _own(self, einsum: Einsum, apart: Collection[str]) -> list[Expr]:
        """The conditions of an Einsum's points, but for elements of the tensors ``apart``."""
        found = [self.resolved(c) for c in _conjuncts(einsum.where)] if einsum.where else []
        if einsum.where:
            found += self.present(einsum.where, apart)
        found += self.present(einsum.body, apart)
        found += [c for i in einsum.target.indices for c in self.present(i, apart)]
        # a rank that is split unevenly is padded where its parts are iterated in its place
        return found + [
            Apply("<", (RankValue(r), Extent(r))) for r in iteration_ranks(einsum) if r in self.cascade.split
        ]

    def resolved(self, expr: Expr) -> Expr:
        """The expression with tensors that are computed from coordinates alone replaced by how they are."""
        match expr:
            case Access(tensor, indices, at):
                inside = tuple(self.resolved(i) for i in indices)
                if tensor in self._computed:
                    ranks = self.cascade.full_ranks(tensor)
                    return substitute(self._computed[tensor], dict(zip(ranks, inside, strict=True)))
                return Access(tensor, inside, at)
            case Apply(op, args, at):
                return Apply(op, tuple(self.resolved(a) for a in args), at)
        return expr

    def present(self, expr: Expr, apart: Collection[str] = ()) -> list[Expr]:
        """Conditions for a value to be present: every operand, or of ``coalesce`` one."""
        match expr:
            case Access():
                return self.inside(expr, apart)
            case Apply("coalesce", args):
                each = [self.present(a, apart) for a in args]
                if len(each) == 1 or not all(each):
                    return each[0] if len(each) == 1 else []
                alternatives = 1
                for conditions in each:
                    alternatives *= len(conditions)
                if alternatives > _MOST_ALTERNATIVES:
                    return [Apply("or", tuple(_all_of(c) for c in each))]
                # one by one, since a reduction passes on those that concern no reduced rank
                return [_any_of(choice) for choice in product(*each)]
            case Apply(_, args):
                return [c for a in args for c in self.present(a, apart)]
        return []

    def inside(self, access: Access, apart: Collection[str] = ()) -> list[Expr]:
        """Conditions for the element that an access names to be present (``apart``: to be within the tensor, for some
        tensors)."""
        tensor = self.cascade.tensors[access.tensor]
        ranks = self.cascade.full_ranks(access.tensor)
        indices = tuple(self.resolved(i) for i in access.indices)
        found: list[Expr] = []
        for rank, given, index in zip(ranks, access.indices, indices, strict=True):
            found += self.present(given, apart)
            if rank in tensor.iterative:
                if offset_from(index, rank) not in (0, 1) and index not in (Number(0), Extent(rank)):
                    found += [Apply(">=", (index, Number(0))), Apply("<=", (index, Extent(rank)))]
            elif isinstance(index, RankValue):
                found += [Apply("<", (index, Extent(rank)))] if index.rank != rank else []
            elif not isinstance(index, Access):  # a bare index tensor holds coordinates of the rank
                found += [Apply(">=", (index, Number(0))), Apply("<", (index, Extent(rank)))]
        return found if access.tensor in apart else found + self._element(access.tensor, ranks, indices)

    def missing(self, expr: Expr) -> Expr | None:
        """A condition that holds where a value is absent; None where it never is."""
        found = self.present(expr)
        return Apply("not", (_all_of(found),)) if found else None

    def _element(self, tensor: str, ranks: Sequence[str], indices: Sequence[Expr]) -> list[Expr]:
        """Conditions for an element to have been made."""
        made = self._on_tensor.get(tensor, ())
        change = dict(zip(ranks, indices, strict=True))
        steps = self._iterative(tensor)
        if not steps:
            return [substitute(c, change) for c in made]
        (rank,) = steps if len(steps) == 1 else (None,)
        if rank is None:
            return []
        index = change[rank]
        offset = offset_from(index, rank)
        started = [substitute(c, change) for c in self._started.get(tensor, ())]
        if index == Number(0):
            return started
        if offset == 1:
            later = {**change, rank: RankValue(rank)}
            # what is absent is so from some step on: to a reduction over the steps, a matter of points
            never = Apply("<", (index, Number(0)))
            found = [substitute(c, later) for c in made]
            return [c if rank in rank_values(c) else _any_of((never, c)) for c in found]
        before = {**change, rank: Apply("-", (index, Number(1)))}
        found = [_any_of((Apply("<=", (index, Number(0))), substitute(c, before))) for c in made]
        return found + [_any_of((Apply(">", (index, Number(0))), c)) for c in started]

    # Recurrences

    def _recurrence(self, group: Sequence[str]) -> None:
        """Tensors that need each other's earlier steps. A step needs the step before it, so what fails once fails ever
        after: where it can begin to hold again, it must have held throughout."""
        own = {n: self._own(self._einsums[n], group) for n in group}
        starts = {n: [c for s in self._starts if s.name == n for c in self._own(s, group)] for n in group}
        every = [c for n in group for c in (*self._whole(n, own[n]), *starts[n])]
        read = [a for e in (*self._starts, *self._einsums.values()) if e.name in group for a in reads(e)]
        self._doubt(group, [c for a in read for c in self._unsure.get(a.tensor, ())])
        if not all(self._all_started(n) for n in group):
            self._doubt(group, [NEVER])
        found = self._closed(group, own, starts)
        if found is None:  # nothing is lost if all of them hold
            self._doubt(group, every)
        for n in group:
            self._settle(n, own[n] if found is None else found[n])
            if found is not None:
                self._started[n] = tuple(dict.fromkeys(starts[n]))
                self._on_tensor[n] = self._whole(n, found[n])

    def _closed(
        self, group: Sequence[str], own: Mapping[str, list[Expr]], starts: Mapping[str, list[Expr]]
    ) -> dict[str, tuple[Expr, ...]] | None:
        """The conditions of a recurrence with those of earlier steps; None where they cannot be told."""
        (rank, *more) = dict.fromkeys(r for n in group for r in self._iterative(n))
        if more or any(a.tensor in group for n in group for a in _alternatives(self._einsums[n])):
            return None
        for n in group:
            self._started[n] = tuple(dict.fromkeys(starts[n]))
        found = {n: tuple(self._lasting(n, group, rank, c)) for n, c in own.items()}
        for _ in range(2 * len(group) + 2):
            self._on_tensor |= {n: self._whole(n, found[n]) for n in group}
            after = {n: self._with_mates(n, group, rank, found) for n in group}
            if after == found:
                return found
            found = after
        return None

    def _whole(self, name: str, conditions: Sequence[Expr]) -> tuple[Expr, ...]:
        reduced = set(reduced_ranks(self._einsums[name]))
        return tuple(c for c in conditions if not reduced & set(rank_values(c)))

    def _all_started(self, name: str) -> bool:
        """Whether starts make all elements on the boundary of several iterative ranks."""
        ranks = self.cascade.full_ranks(name)
        made = {
            r for s in self._starts if s.name == name
            for r, i in zip(ranks, s.target.indices, strict=True)
            if i == Number(0) and sum(isinstance(x, Number) for x in s.target.indices) == 1
        }  # fmt: skip
        return len(self._iterative(name)) < 2 or made == self._iterative(name)

    def _at_own_step(self, access: Access, rank: str) -> bool:
        """Whether every index is the point's own coordinate, along an iterative rank perhaps of this step's element."""
        steps = self._iterative(access.tensor)
        return all(
            index == RankValue(own) or (own == rank and own in steps and offset_from(index, own) == 1)
            for own, index in zip(self.cascade.full_ranks(access.tensor), access.indices, strict=True)
        )

    def _with_mates(
        self, name: str, group: Sequence[str], rank: str, found: Mapping[str, tuple[Expr, ...]]
    ) -> tuple[Expr, ...]:
        """The conditions of an Einsum with those of the elements of its group that it reads."""
        einsum = self._einsums[name]
        now, step = RankValue(rank), Apply("-", (RankValue(rank), Number(1)))
        result = dict.fromkeys(found[name])
        for access in dict.fromkeys((*accesses(einsum.body), *accesses(einsum.where))):
            if access.tensor not in group:
                continue
            made = self._on_tensor[access.tensor]
            if not self._at_own_step(access, rank):
                indices = [self.resolved(i) for i in access.indices]
                ranks = self.cascade.full_ranks(access.tensor)
                result |= dict.fromkeys(self._element(access.tensor, ranks, indices))
                continue
            if not self._iterative(access.tensor) or now not in access.indices:
                result |= dict.fromkeys(made)
                continue
            started = self._started.get(access.tensor, ())
            if access.tensor == name:
                result |= dict.fromkeys(started)
            else:
                result |= dict.fromkeys(_any_of((Apply(">", (now, Number(0))), c)) for c in started)
            for c in made:
                if c not in result or not _monotone(c, rank):  # else it held before as it holds now
                    result[_any_of((Apply("<=", (now, Number(0))), substitute(c, {rank: step})))] = None
        return tuple(self._lasting(name, group, rank, list(result)))

    def _lasting(self, name: str, group: Sequence[str], rank: str, conditions: list[Expr]) -> list[Expr]:
        """The conditions of a step that needs the one before it: what fails once fails ever after."""
        mates = self._beside(name, group, rank)
        itself = name in mates or any(
            name in self._beside(m, group, rank) for m in mates if not self._iterative(m)
        )  # fmt: skip
        if not self._iterative(name) or not itself:
            return list(dict.fromkeys(conditions))
        passed_on = set(self._whole(name, conditions))  # the others are only about points
        some = [c for c in conditions if not self._said(c, conditions, rank)]
        return list(
            dict.fromkeys(c if c not in passed_on or _monotone(c, rank) else _throughout(c, rank) for c in some)
        )

    def _beside(self, name: str, group: Sequence[str], rank: str) -> set[str]:
        """Tensors of a group that an Einsum reads at a point's own coordinates."""
        read = reads(self._einsums[name])
        return {a.tensor for a in read if a.tensor in group and self._at_own_step(a, rank)}

    def _said(self, condition: Expr, others: Sequence[Expr], rank: str) -> bool:
        """Whether a condition only says that another one held a step before."""
        before = {rank: Apply("-", (RankValue(rank), Number(1)))}
        first = Apply("<=", (RankValue(rank), Number(0)))
        said = (_any_of((first, substitute(c, before))) for c in others if c != condition)
        return any(condition == c for c in said)


def _throughout(condition: Expr, rank: str) -> Expr:
    """A condition that held at every step so far, this one included."""
    if _monotone(condition, rank, falling=False):  # from the first step on
        return substitute(condition, {rank: Number(0)})
    step = Extent(f"{rank}@")
    after = Apply("+", (RankValue(rank), Number(1)))
    return Apply(THROUGHOUT, (after, step, Extent(rank), substitute(condition, {rank: step})))


def _monotone(condition: Expr, rank: str, *, falling: bool = True) -> bool:
    """Whether a condition that holds at a step held at every step before it (or, not ``falling``, at every later)."""
    if rank not in rank_values(condition):
        return True
    match condition:
        case Apply("and" | "or", args):
            return all(_monotone(a, rank, falling=falling) for a in args)
        case Apply("not", (a,)):
            return _monotone(a, rank, falling=not falling)
        case Apply("<" | "<=" | ">" | ">=" as op, (a, b)):
            small, large = (a, b) if (op in ("<", "<=")) == falling else (b, a)
            return _slope(small, rank) in (0, 1) and _slope(large, rank) in (0, -1)
        case Apply(op, (after, *_)) if op == THROUGHOUT:
            return falling and _slope(after, rank) in (0, 1)
    return False


def _slope(expr: Expr, rank: str) -> int | None:
    """1 where a value never falls as a coordinate rises, -1 where it never rises, 0 where it stays; None unknown."""
    if rank not in rank_values(expr):
        return 0
    match expr:
        case RankValue():
            return 1
        case Apply("+" | "min" | "max", args):
            return _alike([_slope(a, rank) for a in args])
        case Apply("-", (a, b)):
            right = _slope(b, rank)
            return _alike([_slope(a, rank), None if right is None else -right])
        case Apply("neg", (a,)):
            inner = _slope(a, rank)
            return None if inner is None else -inner
        case Apply("*" | "//" as op, (a, b)):
            if _positive(b):
                return _slope(a, rank)
            if op == "*" and _positive(a):
                return _slope(b, rank)
    return None


def _alike(slopes: Sequence[int | None]) -> int | None:
    some = {s for s in slopes if s != 0}
    return None if None in some or len(some) > 1 else next(iter(some), 0)


def _positive(expr: Expr) -> bool:
    return isinstance(expr, Extent) or (isinstance(expr, Number) and expr.value > 0)


def _alternatives(einsum: Einsum) -> list[Access]:
    """Accesses that a point can do without, inside ``coalesce``, and those in the indices of its target."""
    every = [e for x in (einsum.body, einsum.where) if x is not None for e in walk(x)]
    found = [a for e in every if isinstance(e, Apply) and e.op == "coalesce" for a in accesses(e)]
    return found + [a for i in einsum.target.indices for a in accesses(i)]


def _all_of(conditions: Sequence[Expr]) -> Expr:
    return conditions[0] if len(conditions) == 1 else Apply("and", tuple(conditions))


def _any_of(conditions: Sequence[Expr]) -> Expr:
    """``or``, written once for those that are already alternatives."""
    flat = [x for c in conditions for x in (c.args if isinstance(c, Apply) and c.op == "or" else (c,))]
    unique = tuple(dict.fromkeys(flat))
    return unique[0] if len(unique) == 1 else Apply("or", unique)


def _conjuncts(expr: Expr) -> list[Expr]:
    if isinstance(expr, Apply) and expr.op == "and":
        return [c for a in expr.args for c in _conjuncts(a)]
    return [expr]


def conditions_of(cascade: Cascade) -> Conditions:
    """The conditions of all Einsums of a cascade, kept for the cascades asked for last."""
    return _conditions_of(Identity(cascade))


@lru_cache(maxsize=64)
def _conditions_of(key: Identity) -> Conditions:
    cascade: Cascade = key.of
    return Conditions(cascade, [e for e in cascade.explicit if not is_start(e, cascade.tensors[e.name])])
