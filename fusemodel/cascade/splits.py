"""Which ranks the indices of an access stand for, where ranks are split into parts.

A tensor that holds ``m`` may be indexed by ``m`` or by its parts, one that holds the parts by them or by ``m``, and the
parts may themselves be split. Each way to share the indices out among the ranks is scored by how many of them use the
rank they stand for by name; the best is taken if there is one, and among equals that which changes least.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Generic, TypeAlias, TypeVar

Splits: TypeAlias = Mapping[str, tuple[str, str]]
T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Joined:
    """Two parts that make one coordinate of ``whole``; each part is the position of an index, or made of parts again.
    ``padded`` where coordinates beyond the extent of ``whole`` could be taken for others, further on in the tensor."""

    whole: str
    outer: Tree
    inner_rank: str
    inner: Tree
    padded: bool


Tree: TypeAlias = int | Joined


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive ranks of a tensor and the indices that stand for them: one rank, perhaps at parts that are joined, or
    all parts of ``whole`` at one index. ``given`` has each index with the rank that it is a coordinate of."""

    ranks: tuple[str, ...]
    whole: str
    tree: Tree
    given: tuple[tuple[str, int], ...]

    @property
    def plain(self) -> bool:
        """One rank at one index."""
        return len(self.ranks) == len(self.given) == 1


@dataclass(frozen=True, slots=True)
class _Run:
    """What stands for one rank: a tree of indices, and each with its rank."""

    tree: Tree
    given: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class _Way(Generic[T]):
    """A way to share indices out. ``named`` of them use the rank they stand for, ``changes`` are joined or taken apart,
    and ``equal`` ways are as good as this one, itself included."""

    of: T
    named: int
    changes: int = 0
    equal: int = 1

    @property
    def worth(self) -> tuple[int, int]:
        return self.named, -self.changes

    def then(self, other: _Way[U], of: V, changes: int = 0) -> _Way[V]:
        """``of``, which is this way followed by another."""
        return _Way(of, self.named + other.named, self.changes + other.changes + changes, self.equal * other.equal)

    def over(self, other: _Way[T] | None) -> _Way[T]:
        """The better of two ways; this one for two equals."""
        if other is None or self.worth > other.worth:
            return self
        return other if self.worth < other.worth else replace(self, equal=self.equal + other.equal)


def tiling(splits: Splits, whole: str, ranks: Sequence[str], start: int = 0) -> int:
    """How many ranks from ``start`` on make up ``whole``: 1 for itself, more for all its parts, 0 if they do not."""
    if start < len(ranks) and ranks[start] == whole:
        return 1
    if whole not in splits:
        return 0
    outer, inner = splits[whole]
    first = tiling(splits, outer, ranks, start)
    rest = tiling(splits, inner, ranks, start + first) if first else 0
    return first + rest if rest else 0


def parts_of(splits: Splits, whole: str) -> frozenset[str]:
    """The parts of a rank, and theirs."""
    return frozenset(x for p in splits.get(whole, ()) for x in (p, *parts_of(splits, p)))


def arrange(
    splits: Splits, ranks: Sequence[str], names: Sequence[frozenset[str]], shifted: Sequence[str | None]
) -> tuple[Piece, ...] | None:
    """The ranks of a tensor shared out among the indices of an access, in order; None if no way, or no best, is found.

    ``names`` has the ranks that each index uses, ``shifted`` the rank of an index that is a coordinate, perhaps with a
    constant added: such a part does not stand for its whole, where an index is likelier to be forgotten.
    """
    if splits:
        return _shared_out(tuple(splits.items()), tuple(ranks), tuple(names), tuple(shifted))
    if len(ranks) != len(names):
        return None
    return tuple(Piece((r,), r, j, ((r, j),)) for j, r in enumerate(ranks))


@lru_cache(maxsize=2**14)  # a cascade has few kinds of accesses, and asks for each many times
def _shared_out(
    splits: tuple[tuple[str, tuple[str, str]], ...],
    ranks: tuple[str, ...],
    names: tuple[frozenset[str], ...],
    shifted: tuple[str | None, ...],
) -> tuple[Piece, ...] | None:
    best = _Search(dict(splits), ranks, names, shifted).rest(0, 0)
    return best.of if best and best.equal == 1 else None


class _Search:
    """Every way once: the best for the ranks and the indices from some position on does not depend on those before."""

    def __init__(
        self, splits: Splits, ranks: tuple[str, ...], names: tuple[frozenset[str], ...], shifted: tuple[str | None, ...]
    ) -> None:
        self.splits, self.ranks, self.names, self.shifted = splits, ranks, names, shifted
        self.known_rest: dict[tuple[int, int], _Way[tuple[Piece, ...]] | None] = {}
        self.known_runs: dict[tuple[str, int, bool, bool], dict[int, _Way[_Run]]] = {}

    def rest(self, i: int, j: int) -> _Way[tuple[Piece, ...]] | None:
        """The best way to share out the indices from ``j`` on among the ranks from ``i`` on."""
        if i == len(self.ranks):
            return _Way((), 0) if j == len(self.names) else None
        if (i, j) not in self.known_rest:
            best: _Way[tuple[Piece, ...]] | None = None
            for way, used in self.pieces(i, j):
                if rest := self.rest(i + len(way.of.ranks), j + used):
                    best = way.then(rest, (way.of, *rest.of)).over(best)
            self.known_rest[i, j] = best
        return self.known_rest[i, j]

    def pieces(self, i: int, j: int) -> Iterator[tuple[_Way[Piece], int]]:
        """Ways to begin at a rank and an index, and how many indices each uses."""
        rank = self.ranks[i]
        for used, way in self.runs(rank, j).items():
            piece = Piece((rank,), rank, way.of.tree, way.of.given)
            yield _Way(piece, way.named, way.changes, way.equal), used
        for whole in self.splits if j < len(self.names) else ():
            n = tiling(self.splits, whole, self.ranks, i)
            if n > 1 and self.shifted[j] not in parts_of(self.splits, whole):
                piece = Piece(self.ranks[i : i + n], whole, j, ((whole, j),))
                yield _Way(piece, int(whole in self.names[j]), n - 1), 1

    def runs(self, rank: str, j: int, inner: bool = False, top: bool = True) -> Mapping[int, _Way[_Run]]:
        """For each number of indices from ``j`` on that can stand for a rank, the best way. At the ``top`` the parts of
        another rank can, where all are named: that rank is read in place of this one."""
        if j >= len(self.names):
            return {}
        key = rank, j, inner, top
        if key not in self.known_runs:
            found = {1: _Way(_Run(j, ((rank, j),)), int(rank in self.names[j]))}
            for whole in self.splits if top else {rank} & self.splits.keys():
                if whole == rank or not self.related(whole, rank):
                    for used, way in self.joined(whole, j, inner or whole != rank):
                        if way.named >= (1 if whole == rank else used):
                            found[used] = way.over(found.get(used))
            self.known_runs[key] = found
        return self.known_runs[key]

    def joined(self, whole: str, j: int, padded: bool) -> Iterator[tuple[int, _Way[_Run]]]:
        outer, inner = self.splits[whole]
        for n, first in self.runs(outer, j, False, False).items():
            for k, last in self.runs(inner, j + n, True, False).items():
                tree = Joined(whole, first.of.tree, inner, last.of.tree, padded)
                yield n + k, first.then(last, _Run(tree, first.of.given + last.of.given), 1)

    def related(self, a: str, b: str) -> bool:
        return a in parts_of(self.splits, b) or b in parts_of(self.splits, a)
