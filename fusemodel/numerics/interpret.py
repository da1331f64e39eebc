"""Executing a cascade on arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fusemodel.cascade.ir import Cascade, Einsum, iteration_ranks, reduced_ranks, reduction_op
from fusemodel.cascade.plan import Compute, Plan, plan
from fusemodel.numerics.evaluate import condition, evaluate, whole
from fusemodel.numerics.inputs import complete_extents, floating, prepared, random_inputs
from fusemodel.numerics.operators import unify
from fusemodel.numerics.place import Place, made_along, ranks_of
from fusemodel.numerics.product import as_product, contract
from fusemodel.numerics.reduce import fold, scatter
from fusemodel.numerics.regroup import regrouped
from fusemodel.numerics.select import choose
from fusemodel.numerics.values import Array, Factor, Space, Stored, Value, all_hold, merged

#: Points evaluated at once, beyond which an Einsum is evaluated block by block.
BLOCK = 2**24

DTypeName = Literal["float32", "float64"]


@dataclass(frozen=True)
class Result:
    """Every tensor of a run, its axes in the order of ``cascade.declared_ranks`` (an iterative rank has one element
    more than its extent). Absent elements are NaN, or -1 in integer and False in boolean tensors; ``present`` has a
    mask for each tensor that has any. ``points`` counts the points of all iteration spaces."""

    tensors: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]
    present: Mapping[str, NDArray[np.bool_]]
    extents: Mapping[str, int]
    points: int

    def __getitem__(self, tensor: str) -> NDArray[Any]:
        return self.tensors[tensor]


def run(
    cascade: Cascade,
    inputs: Mapping[str, Any] | None = None,
    extents: Mapping[str, int] | None = None,
    *,
    dtype: DTypeName = "float64",
    seed: int = 0,
) -> Result:
    """Execute a cascade. Extents not given follow from the shapes of ``inputs``, else from :func:`test_extents`;
    without ``inputs`` they are random, made from ``seed``."""
    floating(dtype)
    sizes = complete_extents(cascade, inputs, extents)
    given = random_inputs(cascade, sizes, seed=seed, dtype=dtype) if inputs is None else inputs
    tensors = {name: Stored(values) for name, values in prepared(cascade, given, sizes, dtype).items()}
    machine = _Machine(cascade, sizes, dtype, tensors)
    with np.errstate(all="ignore"):
        machine.execute(plan(cascade), {})
    for name in cascade.shapes:
        tensors[name] = _as_declared(cascade, name, tensors[name], sizes)
    present = {n: mask for n, t in tensors.items() if (mask := t.present) is not None}
    values = {n: _blanked(t.values, present.get(n)) for n, t in tensors.items()}
    return Result(values, {n: values[n] for n in cascade.outputs}, present, sizes, count_points(cascade, sizes))


def count_points(cascade: Cascade, extents: Mapping[str, int]) -> int:
    """The points of all iteration spaces, those a condition excludes included."""
    return sum(int(np.prod([extents[r] for r in iteration_ranks(e)], dtype=object)) for e in cascade.explicit)


def _as_declared(cascade: Cascade, name: str, tensor: Stored, extents: Mapping[str, int]) -> Stored:
    """An output by the ranks it is declared with; padding of parts is absent."""
    held, wanted = cascade.full_ranks(name), cascade.declared_ranks(name)
    mask = np.ones(tensor.values.shape, bool) if tensor.present is None else tensor.present
    values, mask = (regrouped(x, held, wanted, cascade.split, extents, 0) for x in (tensor.values, mask))
    return Stored(values, {frozenset(range(values.ndim)): mask})


def _blanked(values: Array, present: NDArray[np.bool_] | None) -> Array:
    if present is None:
        return values
    blank = {"f": np.nan, "b": False}.get(values.dtype.kind, -1)
    return np.where(present, values, np.asarray(blank, values.dtype))


@dataclass
class _Machine:
    cascade: Cascade
    extents: Mapping[str, int]
    dtype: DTypeName
    tensors: dict[str, Stored]

    def execute(self, items: Iterable[Plan], fixed: Mapping[str, int]) -> None:
        for item in items:
            if isinstance(item, Compute):
                self.compute(self.cascade.explicit[item.equation], fixed)
            else:
                for step in range(self.extents[item.rank]):
                    self.execute(item.body, {**fixed, item.rank: step})

    def compute(self, einsum: Einsum, fixed: Mapping[str, int]) -> None:
        place = Place.of(self.cascade, einsum)
        axes = self.axes(einsum, place, fixed)
        if place.scattered:
            space = Space(axes, fixed, self.extents, self.dtype)
            self.scatter(einsum, place, space)
            return
        whole_ranks = {*reduced_ranks(einsum)}
        for block in _blocks(axes, [r for r in axes if r not in whole_ranks]):
            space = Space(block, fixed, self.extents, self.dtype)
            self.store(einsum, place, self.value(einsum, space), space)

    def axes(self, einsum: Einsum, place: Place, fixed: Mapping[str, int]) -> dict[str, range]:
        """The coordinates of each rank to evaluate: the left side first and in its order, then reduced ranks. The rank
        a selection searches stands where the one it creates will."""
        order = [r for i in einsum.target.indices for r in ranks_of(i)]
        selection = einsum.selection
        if selection:
            order = [selection.rank if r == selection.into else r for r in order]
        order = list(dict.fromkeys([*order, *iteration_ranks(einsum)]))
        return {r: range(self.extents[r] + (r in place.boundary)) for r in order if r not in fixed}

    def value(self, einsum: Einsum, space: Space) -> Value:
        where = condition(einsum.where, space, self.tensors)
        reduced = frozenset(reduced_ranks(einsum))
        op = reduction_op(einsum)
        if not einsum.selection and op == "sum" and reduced and (factors := as_product(einsum.body)):
            value = contract(factors, where, reduced, space, self.tensors)
            if value is not None:
                return value
        body = evaluate(einsum.body, space, self.tensors)
        body = Value(body.data, merged((*body.factors, *where)))
        if s := einsum.selection:
            return choose(s.op, body, s.rank, s.into, space)
        return fold(op, body, reduced, space)

    def store(self, einsum: Einsum, place: Place, value: Value, space: Space) -> None:
        s = einsum.selection
        axes = dict(space.axes)
        if s and s.into:
            axes[s.into] = range(self.extents[s.into])
        picks = place.picks(axes, space.fixed)
        kept = sum(isinstance(p, slice) for p in picks)
        stored = self.stored(einsum.name, value.data)
        stored.values[picks] = value.data.reshape(value.data.shape[:kept])
        self.mark(stored, place, picks, value.factors)

    def mark(self, stored: Stored, place: Place, picks: tuple[Any, ...], factors: Iterable[Factor]) -> None:
        """Write where elements are present, in a mask for each set of axes along which that varies; iterative ranks
        always count, since other equations make other elements along them."""
        masks: dict[frozenset[int], Array] = {}
        for factor in factors:
            ranks = enumerate(zip(place.ranks, place.rank_at, strict=True))
            along = frozenset(d for d, (own, at) in ranks if at in factor.deps or own in place.iterative)
            masks[along] = masks[along] & factor.mask if along in masks else factor.mask
        kept = sum(isinstance(p, slice) for p in picks)
        for along, mask in masks.items():
            if along not in stored.gaps:
                shape = [n if d in along else 1 for d, n in enumerate(stored.values.shape)]
                stored.gaps[along] = np.ones(shape, bool)
            whole = [slice(None) if isinstance(p, slice) else 0 for p in picks]
            where = tuple(p if d in along else w for d, (p, w) in enumerate(zip(picks, whole, strict=True)))
            stored.gaps[along][where] = mask.reshape(mask.shape[:kept])

    def scatter(self, einsum: Einsum, place: Place, space: Space) -> None:
        value = evaluate(einsum.body, space, self.tensors)
        factors = [*value.factors, *condition(einsum.where, space, self.tensors)]
        picks = place.picks(space.axes, space.fixed)
        places, shape = [], []
        for axis, pick in enumerate(picks):
            if not isinstance(pick, slice):
                continue
            rank, index = place.ranks[axis], einsum.target.indices[axis]
            if place.plain(axis):  # relative to what is picked
                places.append(space.coordinates(rank) - space.axes[rank].start)
                shape.append(len(space.axes[rank]))
            else:
                at, inside = whole(index, space, self.tensors)
                places.append(at)
                factors += inside
                shape.append(self.extents[rank])
        data = scatter(reduction_op(einsum), value, places, shape, all_hold(merged(factors)), space)
        self.stored(einsum.name, data).values[picks] = data

    def stored(self, name: str, data: Array) -> Stored:
        """The tensor being written, made or widened where needed."""
        tensor = self.cascade.tensors[name]
        if name not in self.tensors:
            ranks = self.cascade.full_ranks(name)
            shape = [self.extents[r] + (r in tensor.iterative) for r in ranks]
            self.tensors[name] = Stored(np.zeros(shape, self.dtype if tensor.iterative else data.dtype))
            self.leave_gaps(name, ranks)
        stored = self.tensors[name]
        if not tensor.iterative and stored.values.dtype != data.dtype:
            both = unify([np.empty(0, stored.values.dtype), np.empty(0, data.dtype)], self.dtype)
            stored.values = stored.values.astype(both[0].dtype)
        return stored

    def leave_gaps(self, name: str, ranks: tuple[str, ...]) -> None:
        """Elements on the boundary of several iterative ranks that no start makes are absent."""
        tensor = self.cascade.tensors[name]
        along = frozenset(d for d, r in enumerate(ranks) if r in tensor.iterative)
        if len(along) < 2:
            return
        made = np.zeros([n if d in along else 1 for d, n in enumerate(self.tensors[name].values.shape)], bool)
        for einsum in self.cascade.explicit:
            if einsum.name == name:
                indices = enumerate(einsum.target.indices)
                made[tuple(made_along(i) if d in along else slice(None) for d, i in indices)] = True
        if not made.all():
            self.tensors[name].gaps[along] = made


def _blocks(axes: Mapping[str, range], ranks: Iterable[str]) -> Iterator[dict[str, range]]:
    """The space cut along ``ranks``, outermost first, into blocks of at most :data:`BLOCK` points where it can be."""
    points = int(np.prod([len(r) for r in axes.values()], dtype=object))
    cuts: dict[str, list[range]] = {}
    for rank in ranks:
        if points <= BLOCK:
            break
        span = axes[rank]
        rest = points // max(len(span), 1)
        size = max(1, BLOCK // max(rest, 1))
        cuts[rank] = [range(i, min(i + size, span.stop)) for i in range(span.start, span.stop, size)]
        points = rest * size
    for parts in product(*cuts.values()):
        yield {**axes, **dict(zip(cuts, parts, strict=True))}
