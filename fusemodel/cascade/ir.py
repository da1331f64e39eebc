"""The typed, frozen form of a cascade of extended Einsums.

An expression is a number, the extent of a rank, the value of a rank, a tensor access, or an operator applied to
expressions. An Einsum is ``target = reduction[ranks](body) where condition``; everything a file leaves implicit (batch
ranks, split ranks, implied sums) is made explicit by :meth:`Cascade.explicit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

from fusemodel.errors import NOWHERE, Where


@dataclass(frozen=True, slots=True)
class Number:
    value: int | float


@dataclass(frozen=True, slots=True)
class Extent:
    """The extent of a rank, written in capitals (``M1``)."""

    rank: str


@dataclass(frozen=True, slots=True)
class RankValue:
    """The coordinate along a rank, written as its name (``m1``)."""

    rank: str


@dataclass(frozen=True, slots=True)
class Access:
    """An element of a tensor. A scalar tensor has no indices."""

    tensor: str
    indices: tuple[Expr, ...] = ()
    at: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Apply:
    """An operator applied to operands; ``neg`` is unary minus, ``and``/``or``/``not`` join conditions."""

    op: str
    args: tuple[Expr, ...]
    at: Where = field(default=NOWHERE, compare=False)


Expr: TypeAlias = Number | Extent | RankValue | Access | Apply


@dataclass(frozen=True, slots=True)
class Reduction:
    """The one outermost reduction of an Einsum."""

    op: str
    ranks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """``topk[m -> s]``, ``sort[m -> s]`` or ``argmax[m]``: coordinates along ``rank`` chosen by value."""

    op: str
    rank: str
    into: str | None = None


@dataclass(frozen=True, slots=True)
class Einsum:
    """One equation. ``reduction`` is None for an implied sum, as written; see :func:`reduced_ranks`."""

    target: Access
    body: Expr
    reduction: Reduction | None = None
    selection: Selection | None = None
    where: Expr | None = None
    at: Where = field(default=NOWHERE, compare=False)

    @property
    def name(self) -> str:
        return self.target.tensor


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's declared ranks, without the batch ranks it carries.

    ``iterative`` has the ranks along which it is defined step by step (it holds one element more than their extent);
    ``selects`` is the rank whose coordinates an integer tensor holds.
    """

    name: str
    ranks: tuple[str, ...]
    iterative: frozenset[str] = frozenset()
    selects: str | None = None
    at: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Cascade:
    """A checked cascade: an ordered DAG of Einsums, with the extents of its ranks as expressions."""

    name: str
    ranks: Mapping[str, Expr]
    batch: tuple[str, ...]
    split: Mapping[str, tuple[str, str]]
    inputs: Mapping[str, tuple[str, ...]]
    outputs: tuple[str, ...]
    einsums: tuple[Einsum, ...]
    tensors: Mapping[str, Tensor]
    about: str = ""
    source: str = ""
    provenance: str = ""
    reference: str | None = None
    sequence: tuple[str, ...] = ()
    test: Mapping[str, int] = field(default_factory=dict)
    file: str = field(default="", compare=False)
    places: Mapping[str, Where] = field(default_factory=dict, compare=False)

    def full_ranks(self, tensor: str) -> tuple[str, ...]:
        """The ranks of a tensor with the batch ranks it carries in front."""
        own = self.tensors[tensor].ranks
        return tuple(b for b in self.batch if b not in own) + own

    def definitions(self, tensor: str) -> tuple[Einsum, ...]:
        """The equations that define a tensor: one, or a start and a step."""
        return tuple(e for e in self.einsums if e.name == tensor)

    @cached_property
    def explicit(self) -> tuple[Einsum, ...]:
        """The Einsums with batch ranks and split indices written out, and every reduction explicit."""
        return tuple(_explicit(self, e) for e in self.einsums)

    @cached_property
    def parents(self) -> dict[str, str]:
        """For each part of a split rank, the rank it is part of."""
        return {part: parent for parent, parts in self.split.items() for part in parts}


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and everything in it, outermost first."""
    yield expr
    if isinstance(expr, Apply):
        for arg in expr.args:
            yield from walk(arg)
    elif isinstance(expr, Access):
        for index in expr.indices:
            yield from walk(index)


def accesses(expr: Expr | None) -> tuple[Access, ...]:
    """Every tensor access in an expression, those inside indices included."""
    return () if expr is None else tuple(e for e in walk(expr) if isinstance(e, Access))


def rank_values(expr: Expr | None) -> tuple[str, ...]:
    """The ranks whose coordinates an expression uses, in order of first use."""
    if expr is None:
        return ()
    return tuple(dict.fromkeys(e.rank for e in walk(expr) if isinstance(e, RankValue)))


def reads(einsum: Einsum) -> tuple[Access, ...]:
    """Every tensor access an Einsum reads: body, condition, and indices of its target."""
    inner = tuple(a for i in einsum.target.indices for a in accesses(i))
    return accesses(einsum.body) + accesses(einsum.where) + inner


def target_ranks(einsum: Einsum) -> tuple[str, ...]:
    """The ranks on the left side (those inside a scatter index included)."""
    return tuple(dict.fromkeys(r for i in einsum.target.indices for r in rank_values(i)))


def iteration_ranks(einsum: Einsum) -> tuple[str, ...]:
    """The ranks of the iteration space: left side first, then those only on the right.

    The rank a selection creates (``s`` in ``topk[m -> s]``) is not iterated, the one it searches is.
    """
    right = rank_values(einsum.body) + rank_values(einsum.where)
    ranks = dict.fromkeys(target_ranks(einsum) + right)
    if einsum.selection:
        ranks.pop(einsum.selection.into or "", None)
        ranks[einsum.selection.rank] = None
    return tuple(ranks)


def reduced_ranks(einsum: Einsum) -> tuple[str, ...]:
    """The ranks reduced by the Einsum, written or implied; for a selection, the rank it searches."""
    if einsum.selection:
        return (einsum.selection.rank,)
    if einsum.reduction:
        return einsum.reduction.ranks
    left = target_ranks(einsum)
    return tuple(r for r in iteration_ranks(einsum) if r not in left)


def reduction_op(einsum: Einsum) -> str:
    """``sum`` where implied."""
    return einsum.reduction.op if einsum.reduction else "sum"


def is_start(einsum: Einsum, tensor: Tensor) -> bool:
    """Whether this equation is the start ``T[0, ...] = x`` of an iterative tensor."""
    return any(
        r in tensor.iterative and isinstance(i, Number)
        for r, i in zip(tensor.ranks, einsum.target.indices[-len(tensor.ranks) :], strict=False)
    )


def substitute(expr: Expr, change: Mapping[str, Expr]) -> Expr:
    """The expression with rank coordinates replaced."""
    match expr:
        case RankValue(rank):
            return change.get(rank, expr)
        case Access(tensor, indices, at):
            return Access(tensor, tuple(substitute(i, change) for i in indices), at)
        case Apply(op, args, at):
            return Apply(op, tuple(substitute(a, change) for a in args), at)
    return expr


def join_split(outer: Expr, inner_rank: str, inner: Expr) -> Expr:
    """``m = m1 * M0 + m0``."""
    return Apply("+", (Apply("*", (outer, Extent(inner_rank))), inner))


def match_indices(cascade: Cascade, tensor: Tensor, indices: tuple[Expr, ...]) -> tuple[Expr, ...] | None:
    """One index for each declared rank, with split ranks joined or taken apart; None if the count is wrong.

    A tensor that holds ``m`` may be indexed by ``m`` or by ``m1, m0``, and one that holds ``m1, m0`` by ``m``.
    """
    if len(indices) == len(tensor.ranks):
        return indices
    result: list[Expr] = []
    given = list(indices)
    ranks = list(tensor.ranks)
    while ranks:
        rank = ranks.pop(0)
        if not given:
            return None
        pair = _split_pair(cascade, rank, given)
        if pair and len(given) - 1 > len(ranks):
            result.append(join_split(given.pop(0), pair[1], given.pop(0)))
            continue
        parent = cascade.parents.get(rank)
        parts = cascade.split[parent] if parent else ("", "")
        if parent and parts[0] == rank and ranks[:1] == [parts[1]] and parent in rank_values(given[0]):
            whole = given.pop(0)
            ranks.pop(0)
            size = Extent(parts[1])
            result += [Apply("//", (whole, size)), Apply("%", (whole, size))]
            continue
        result.append(given.pop(0))
    return None if given else tuple(result)


def _split_pair(cascade: Cascade, rank: str, given: list[Expr]) -> tuple[str, str] | None:
    """The split whose two parts the next two indices are: that of ``rank`` itself, or of a rank read in its place."""
    if len(given) < 2 or rank in cascade.parents:
        return None
    own = [cascade.split[rank]] if rank in cascade.split else list(cascade.split.values())
    found = [p for p in own if p[0] in rank_values(given[0]) and p[1] in rank_values(given[1])]
    return found[0] if found else None


def _explicit(cascade: Cascade, einsum: Einsum) -> Einsum:
    def access(a: Access) -> Access:
        tensor = cascade.tensors[a.tensor]
        indices = match_indices(cascade, tensor, a.indices) or a.indices
        carried = tuple(RankValue(b) for b in cascade.batch if b not in tensor.ranks)
        return replace(a, indices=carried + tuple(expand(i) for i in indices))

    def expand(e: Expr) -> Expr:
        match e:
            case Access():
                return access(e)
            case Apply(op, args, at):
                return Apply(op, tuple(expand(x) for x in args), at)
        return e

    carried = [b for b in cascade.batch if b not in cascade.tensors[einsum.name].ranks]
    reduced = tuple(r for r in reduced_ranks(einsum) if r not in carried)
    return replace(
        einsum,
        target=access(einsum.target),
        body=expand(einsum.body),
        where=expand(einsum.where) if einsum.where else None,
        reduction=None if einsum.selection else Reduction(reduction_op(einsum), reduced),
    )
