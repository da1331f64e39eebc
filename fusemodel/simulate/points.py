"""The points of a task: coordinates, values of expressions there, and whether what they read is where they read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusemodel.cascade.ir import Access, Apply, Expr, Extent, Number, RankValue, accesses
from fusemodel.numerics.operators import apply

Array = NDArray[Any]
Where = tuple[Array, ...]


@dataclass
class Grid:
    """Coordinates of leaves at every point of some steps, in one long axis."""

    sizes: Mapping[str, int]
    memo: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[int, dict[str, Array]]] = field(default_factory=dict)

    def points(self, leaves: Sequence[str], steps: Mapping[str, int]) -> tuple[int, dict[str, Array]]:
        """How many points there are where the leaves in ``steps`` stand still, and each leaf's coordinates."""
        still = tuple(x for x in leaves if x in steps)
        key = tuple(leaves), still
        if key not in self.memo:
            shape = [1 if x in still else self.sizes[x] for x in leaves]
            axes = np.indices(shape).reshape(len(shape), -1)
            self.memo[key] = int(np.prod(shape)), dict(zip(leaves, axes, strict=True))
        many, at = self.memo[key]
        return many, {**at, **{x: np.full(many, steps[x]) for x in still}}

    def coordinate(self, parts: Sequence[str], many: int, at: Mapping[str, Array]) -> Array:
        value: Array = np.zeros(many, np.int64)
        for leaf in parts:
            value = value * self.sizes[leaf] + at[leaf]
        return value


@dataclass
class Tensors:
    """Values of every tensor, and which elements a run of the cascade makes."""

    extents: Mapping[str, int]
    values: dict[str, Array]
    present: dict[str, Array]

    def index(self, indices: Sequence[Expr], ranks: Mapping[str, Array], many: int) -> list[Array]:
        """Indices at some points; -1 where a tensor that one is read from has nothing."""
        return [np.broadcast_to(np.asarray(self.plain(i, ranks)), (many,)).astype(np.int64) for i in indices]

    def plain(self, expr: Expr, ranks: Mapping[str, Array]) -> Array:
        match expr:
            case Number(value):
                return np.asarray(value)
            case Extent(rank):
                return np.asarray(self.extents[rank])
            case RankValue(rank):
                return ranks[rank]
            case Apply(op, args):
                return np.asarray(apply(op, [self.plain(a, ranks) for a in args], np.float64))
            case Access(tensor, indices):
                many = len(next(iter(ranks.values())))
                where, there = self.inside(tensor, self.index(indices, ranks, many))
                found = np.broadcast_to(self.values[tensor][where], (many,))
                return np.where(there & ~np.isnan(found.astype(float)), found, -1)

    def inside(self, tensor: str, index: Sequence[Array]) -> tuple[Where, Array]:
        """Indices cut off to the tensor's elements, and which of them name one that the cascade makes."""
        shape = self.values[tensor].shape
        there: Array = np.ones(1, bool)
        for i, n in zip(index, shape, strict=True):
            there = there & (i >= 0) & (i < n)
        where = tuple(np.clip(i, 0, n - 1) for i, n in zip(index, shape, strict=True))
        return where, there & np.broadcast_to(self.present[tensor][where], there.shape)

    def elements(self, tensor: str, index: Sequence[Array]) -> Where:
        """The elements that some indices name, each once."""
        shape = self.values[tensor].shape
        if not shape:
            return ()
        where, there = self.inside(tensor, index)
        flat = np.unique(np.ravel_multi_index(tuple(w[there] for w in where), shape))
        return tuple(np.unravel_index(flat, shape))


@dataclass
class Reader:
    """Evaluates expressions at the points of a task; ``check`` is told each access and the elements that it reads at
    points that are ``needed``."""

    tensors: Tensors
    ranks: Mapping[str, Array]
    many: int
    check: Callable[[Access, Where], None] | None = None
    needed: Array | None = None

    def eval(self, expr: Expr) -> tuple[Array, Array]:
        """Values, and where there is one."""
        match expr:
            case Number() | Extent() | RankValue():
                every = np.broadcast_to(self.tensors.plain(expr, self.ranks), (self.many,))
                return every, np.ones(self.many, bool)
            case Access():
                return self.read(expr)
            case Apply("coalesce", args):
                parts = [self.eval(a) for a in args]
                data, there = parts[-1]
                for value, known in reversed(parts[:-1]):
                    data, there = np.where(known, value, data), known | there
                return data, there
            case Apply(op, args):
                parts = [self.eval(a) for a in args]
                known = np.ones(self.many, bool)
                for _, part in parts:
                    known = known & part
                return np.asarray(apply(op, [np.asarray(d) for d, _ in parts], np.float64)), known

    def read(self, access: Access) -> tuple[Array, Array]:
        for i in access.indices:
            for inner in accesses(i):
                self.read(inner)
        index = self.tensors.index(access.indices, self.ranks, self.many)
        where, there = self.tensors.inside(access.tensor, index)
        there = np.broadcast_to(there, (self.many,))
        if self.check:
            used = there if self.needed is None else there & self.needed
            self.check(access, tuple(w[used] for w in where))
        return np.broadcast_to(self.tensors.values[access.tensor][where], (self.many,)), there


__all__ = ["Grid", "Reader", "Tensors"]
