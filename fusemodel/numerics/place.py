"""Where an equation puts its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusemodel.cascade.graph import step_rank
from fusemodel.cascade.ir import Cascade, Einsum, Expr, Number, RankValue


@dataclass(frozen=True)
class Place:
    """Where an Einsum puts its results: for each axis of its tensor the rank, and the index on the left."""

    ranks: tuple[str, ...]
    indices: tuple[Expr, ...]
    iterative: frozenset[str]

    @classmethod
    def of(cls, cascade: Cascade, einsum: Einsum) -> Place:
        ranks = cascade.full_ranks(einsum.name)
        return cls(ranks, einsum.target.indices, cascade.tensors[einsum.name].iterative)

    def plain(self, axis: int) -> bool:
        """Whether an index is the coordinate itself, or the start or step of an iterative rank."""
        rank, index = self.ranks[axis], self.indices[axis]
        return index == RankValue(rank) or (rank in self.iterative and (step_rank(index) == rank or index == Number(0)))

    @property
    def scattered(self) -> bool:
        return not all(self.plain(d) for d in range(len(self.ranks)))

    @property
    def rank_at(self) -> tuple[str | None, ...]:
        """The rank whose coordinate each axis takes."""
        return tuple(next(iter(ranks_of(i)), None) for i in self.indices)

    @property
    def boundary(self) -> frozenset[str]:
        """Iterative ranks that a start runs along, over all their elements."""
        return frozenset(r for r in self.iterative if RankValue(r) in self.indices)

    def picks(self, axes: Mapping[str, range], fixed: Mapping[str, int]) -> tuple[int | slice, ...]:
        """What to write to along each axis; all of it where the index is computed."""
        result: list[int | slice] = []
        for axis, (rank, index) in enumerate(zip(self.ranks, self.indices, strict=True)):
            first = 1 if step_rank(index) else 0
            if not self.plain(axis):
                result.append(slice(None))
            elif index == Number(0):
                result.append(0)
            elif rank in fixed:
                result.append(fixed[rank] + first)
            else:
                result.append(slice(axes[rank].start + first, axes[rank].stop + first))
        return tuple(result)


def ranks_of(index: Expr) -> tuple[str, ...]:
    """The rank whose coordinate an index on the left is, or is one more than; none where it is computed."""
    return (index.rank,) if isinstance(index, RankValue) else ((r,) if (r := step_rank(index)) else ())


def made_along(index: Expr) -> int | slice:
    """The elements along an iterative rank that an equation makes."""
    return 0 if index == Number(0) else slice(1 if step_rank(index) else 0, None)
