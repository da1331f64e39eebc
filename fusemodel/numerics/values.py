"""Arrays in which elements can be absent.

Why an element is absent matters, not only that it is. A reduction ignores absent points, and over none gives its
identity; but a product of a query with a key that does not exist is not a score of zero, it is no score at all. So
presence is kept as *factors*, each a mask over the few ranks it depends on: a condition, an index out of range, a gap
in an operand. An element is present where all its factors hold. A reduction passes on the factors that involve no
reduced rank (they hold or fail for the whole fiber), and uses the others to ignore points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Factor:
    """``mask`` broadcasts over the axes of a space; it depends on the ranks ``deps``, fixed ones included."""

    deps: frozenset[str]
    mask: Mask


@dataclass(frozen=True)
class Value:
    """``data`` has one axis for each rank of a space, of length 1 where it does not vary."""

    data: Array
    factors: tuple[Factor, ...] = ()


@dataclass(frozen=True)
class Space:
    """The points at which an Einsum is evaluated: ``axes`` has the coordinates of each rank, in order of the axes of
    every array; ``fixed`` those of the ranks stepped outside."""

    axes: Mapping[str, range]
    fixed: Mapping[str, int]
    extents: Mapping[str, int]
    dtype: DTypeLike

    @property
    def ranks(self) -> tuple[str, ...]:
        return tuple(self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(r) for r in self.axes.values())

    def constant(self, value: float | bool) -> Array:
        """A number as an array; whole numbers stay integers."""
        exact = isinstance(value, int) and -(2**63) <= value < 2**63
        dtype = np.int64 if exact else self.dtype
        return np.full((1,) * len(self.axes), value if exact else float(value), dtype)

    def coordinates(self, rank: str) -> Array:
        """The coordinates along a rank."""
        if rank in self.fixed:
            return self.constant(self.fixed[rank])
        span = self.axes[rank]
        shape = [1] * len(self.axes)
        shape[self.ranks.index(rank)] = len(span)
        return np.arange(span.start, span.stop, dtype=np.int64).reshape(shape)


@dataclass
class Stored:
    """A tensor: ``values`` has an axis for each of its ranks; ``gaps`` maps axes to a mask that varies along these
    (and has length 1 along the others), false where elements are absent."""

    values: Array
    gaps: dict[frozenset[int], Mask] = field(default_factory=dict)

    @property
    def present(self) -> Mask | None:
        """One mask of the tensor's shape; None where everything is present."""
        if not self.gaps:
            return None
        mask = reduce(np.logical_and, self.gaps.values())
        return None if mask.all() else np.broadcast_to(mask, self.values.shape).copy()


def merged(factors: Iterable[Factor]) -> tuple[Factor, ...]:
    """At most one factor for each set of ranks, and none that always holds."""
    by_deps: dict[frozenset[str], Mask] = {}
    for f in factors:
        by_deps[f.deps] = by_deps[f.deps] & f.mask if f.deps in by_deps else f.mask
    return tuple(Factor(deps, mask) for deps, mask in by_deps.items() if not mask.all())


def all_hold(factors: Iterable[Factor]) -> Mask | None:
    """Where every factor holds; None for everywhere."""
    masks = [f.mask for f in factors]
    return reduce(np.logical_and, masks) if masks else None


def either(a: tuple[Factor, ...], b: tuple[Factor, ...]) -> tuple[Factor, ...]:
    """The factors of what is present where all of ``a`` or all of ``b`` hold."""
    return merged(Factor(x.deps | y.deps, x.mask | y.mask) for x in a for y in b)
