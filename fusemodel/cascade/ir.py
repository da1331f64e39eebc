"""The typed, frozen form of a cascade of extended Einsums.

An expression is a number, the extent of a rank, the value of a rank, a tensor access, or an operator applied to
expressions. An Einsum is ``target = reduction[ranks](body) where condition``; everything a file leaves implicit (batch
ranks, split ranks, implied sums) is made explicit by :meth:`Cascade.explicit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

from fusemodel.cascade.splits import Joined, Piece, Splits, Tree, arrange, tiling
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


@dataclass(frozen=True)
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

    @cached_property
    def accesses(self) -> tuple[Access, ...]:
        """See :func:`reads`, which plans ask for thousands of times."""
        inner = tuple(a for i in self.target.indices for a in accesses(i))
        return accesses(self.body) + accesses(self.where) + inner

    @cached_property
    def iterated(self) -> tuple[str, ...]:
        """See :func:`iteration_ranks`."""
        right = rank_values(self.body) + rank_values(self.where)
        ranks = dict.fromkeys(target_ranks(self) + right)
        if self.selection:
            ranks.pop(self.selection.into or "", None)
            ranks[self.selection.rank] = None
        return tuple(ranks)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's declared ranks, without the batch ranks it carries.

    ``iterative`` has the ranks along which it is defined step by step (it holds one element more than their extent);
    ``selects`` is the rank whose coordinates an integer tensor holds; ``batched`` says whether it carries the batch
    ranks that are not among its own, which parameters and what is computed from them alone do not.
    """

    name: str
    ranks: tuple[str, ...]
    iterative: frozenset[str] = frozenset()
    selects: str | None = None
    batched: bool = True
    at: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Cascade:
    """A checked cascade: an ordered DAG of Einsums, with the extents of its ranks as expressions.

    ``shapes`` has the ranks of each output that is declared by other ranks than it is computed by: a rank for its
    parts, or parts for a rank. ``parameters`` has the inputs that are the same for every element of the batch.
    """

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
    shapes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    test: Mapping[str, int] = field(default_factory=dict)
    parameters: frozenset[str] = frozenset()
    file: str = field(default="", compare=False)
    places: Mapping[str, Where] = field(default_factory=dict, compare=False)

    def carried(self, tensor: str) -> tuple[str, ...]:
        """The batch ranks that a tensor carries without naming them."""
        held = self.tensors[tensor]
        return tuple(b for b in self.batch if held.batched and b not in held.ranks)

    def full_ranks(self, tensor: str) -> tuple[str, ...]:
        """The ranks of a tensor with the batch ranks it carries in front."""
        return (*self.carried(tensor), *self.tensors[tensor].ranks)

    def declared_ranks(self, tensor: str) -> tuple[str, ...]:
        """The ranks by which a tensor is given or taken: those of :meth:`full_ranks`, or of ``shapes`` where it is an
        output declared by others."""
        return (*self.carried(tensor), *self.shapes.get(tensor, self.tensors[tensor].ranks))

    def definitions(self, tensor: str) -> tuple[Einsum, ...]:
        """The equations that define a tensor: one, or a start and a step."""
        return tuple(e for e in self.einsums if e.name == tensor)

    def _repr_svg_(self) -> str:
        from fusemodel.report.draw import cascade_svg

        return cascade_svg(self)

    @cached_property
    def explicit(self) -> tuple[Einsum, ...]:
        """The Einsums with batch ranks and split indices written out, and every reduction explicit."""
        return tuple(_explicit(self, e) for e in self.einsums)

    @cached_property
    def fixed_indices(self) -> tuple[tuple[Access, str, Expr], ...]:
        """Every index that is a number or an extent: its access, and the rank it is a coordinate of."""
        return tuple(
            (access, rank, index)
            for einsum in self.einsums
            for access in (einsum.target, *reads(einsum))
            for rank, index in given_indices(self.split, self.tensors[access.tensor].ranks, access.indices)
            if isinstance(index, (Number, Extent))
        )

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
    if expr is None or isinstance(expr, (RankValue, Extent, Number)):
        return ()
    return tuple(e for e in walk(expr) if isinstance(e, Access))


def rank_values(expr: Expr | None) -> tuple[str, ...]:
    """The ranks whose coordinates an expression uses, in order of first use."""
    if expr is None:
        return ()
    if isinstance(expr, RankValue):
        return (expr.rank,)
    return tuple(dict.fromkeys(e.rank for e in walk(expr) if isinstance(e, RankValue)))


def reads(einsum: Einsum) -> tuple[Access, ...]:
    """Every tensor access an Einsum reads: body, condition, and indices of its target."""
    return einsum.accesses


def target_ranks(einsum: Einsum) -> tuple[str, ...]:
    """The ranks on the left side (those inside a scatter index included)."""
    return tuple(dict.fromkeys(r for i in einsum.target.indices for r in rank_values(i)))


def iteration_ranks(einsum: Einsum) -> tuple[str, ...]:
    """The ranks of the iteration space: left side first, then those only on the right.

    The rank a selection creates (``s`` in ``topk[m -> s]``) is not iterated, the one it searches is.
    """
    return einsum.iterated


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


def arranged(splits: Splits, ranks: Sequence[str], indices: Sequence[Expr]) -> tuple[Piece, ...] | None:
    """The ranks that indices stand for; None where they are too many or too few."""
    return arrange(splits, ranks, [frozenset(rank_values(i)) for i in indices], [_shifted(i) for i in indices])


def _shifted(index: Expr) -> str | None:
    match index:
        case RankValue(rank):
            return rank
        case Apply("+" | "-", (RankValue(rank), Number())) | Apply("+", (Number(), RankValue(rank))):
            return rank
    return None


def match_indices(cascade: Cascade, tensor: Tensor, indices: tuple[Expr, ...]) -> tuple[Expr, ...] | None:
    """One index for each declared rank, with split ranks joined or taken apart; None if the count is wrong.

    A tensor that holds ``m`` may be indexed by ``m`` or by ``m1, m0``, and one that holds ``m1, m0`` by ``m``. The
    element is the one meant where :func:`index_conditions` hold, and else absent.
    """
    pieces = arranged(cascade.split, tensor.ranks, indices)
    return None if pieces is None else tuple(e for p in pieces for e in _by_rank(cascade.split, p, indices))


def index_conditions(cascade: Cascade, access: Access) -> tuple[Expr, ...]:
    """What must hold for an element to be there, besides that the indices of :func:`match_indices` lie in the tensor:
    an index that is no coordinate of its part of a rank could be taken for one of the next."""
    pieces = arranged(cascade.split, cascade.tensors[access.tensor].ranks, access.indices) or ()
    return tuple(c for p in pieces for c in _inside(p, access.indices))


def given_indices(splits: Splits, ranks: Sequence[str], indices: Sequence[Expr]) -> list[tuple[str, Expr]]:
    """Each index with the rank that it is a coordinate of: one of ``ranks``, its part or its whole."""
    pieces = arranged(splits, ranks, indices) or ()
    return [(rank, indices[j]) for piece in pieces for rank, j in piece.given]


def _by_rank(splits: Splits, piece: Piece, indices: Sequence[Expr]) -> list[Expr]:
    if len(piece.ranks) == 1:
        return [_joined(piece.tree, indices)]
    assert isinstance(piece.tree, int)
    return _apart(splits, piece.ranks, piece.whole, indices[piece.tree])


def _joined(tree: Tree, indices: Sequence[Expr]) -> Expr:
    if isinstance(tree, int):
        return indices[tree]
    return join_split(_joined(tree.outer, indices), tree.inner_rank, _joined(tree.inner, indices))


def _apart(splits: Splits, ranks: Sequence[str], whole: str, index: Expr) -> list[Expr]:
    """An index for each of ``ranks``, which make up ``whole``."""
    if ranks[0] == whole:
        return [index]
    outer, inner = splits[whole]
    n = tiling(splits, outer, ranks)
    size = Extent(inner)
    return [
        *_apart(splits, ranks[:n], outer, Apply("//", (index, size))),
        *_apart(splits, ranks[n:], inner, Apply("%", (index, size))),
    ]


def _inside(piece: Piece, indices: Sequence[Expr]) -> Iterator[Expr]:
    if len(piece.ranks) > 1 and isinstance(index := indices[piece.given[0][1]], Apply):
        yield Apply("<", (index, Extent(piece.whole)))  # beyond the whole there may be padding of its parts
    pending: list[Tree] = [piece.tree]
    while pending:
        tree = pending.pop()
        if isinstance(tree, Joined):
            if tree.padded:
                yield Apply("<", (_joined(tree, indices), Extent(tree.whole)))
            if isinstance(tree.inner, int) and isinstance(index := indices[tree.inner], Apply):
                yield Apply(">=", (index, Number(0)))
                yield Apply("<", (index, Extent(tree.inner_rank)))
            pending += [tree.outer, tree.inner]


def _explicit(cascade: Cascade, einsum: Einsum) -> Einsum:
    inside: dict[Expr, None] = {}

    def access(a: Access, filled: bool = False) -> Access:
        tensor = cascade.tensors[a.tensor]
        indices = list(match_indices(cascade, tensor, a.indices) or a.indices)
        conditions = index_conditions(cascade, a)
        if filled and conditions:  # what stands in for an absent element is not left out with it
            indices[0] = Apply("select", (_all(conditions), indices[0], Number(-1)))
        else:
            inside.update(dict.fromkeys(conditions))
        carried = tuple(RankValue(b) for b in cascade.carried(a.tensor))
        return replace(a, indices=carried + tuple(expand(i, filled) for i in indices))

    def expand(e: Expr, filled: bool = False) -> Expr:
        match e:
            case Access():
                return access(e, filled)
            case Apply(op, args, at):
                return Apply(op, tuple(expand(x, filled or op == "coalesce") for x in args), at)
        return e

    target, body = access(einsum.target), expand(einsum.body)
    where = () if einsum.where is None else (expand(einsum.where),)
    conditions = (*where, *map(expand, tuple(inside)))
    reduced = tuple(r for r in reduced_ranks(einsum) if r not in cascade.carried(einsum.name))
    return replace(
        einsum,
        target=target,
        body=body,
        where=_all(conditions) if conditions else None,
        reduction=None if einsum.selection else Reduction(reduction_op(einsum), reduced),
    )


def _all(conditions: Sequence[Expr]) -> Expr:
    return conditions[0] if len(conditions) == 1 else Apply("and", tuple(conditions))
