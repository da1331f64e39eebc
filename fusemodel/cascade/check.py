"""Checks of a whole cascade: every name, index, rank and dependence, before anything is computed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from fusemodel.cascade.graph import step_rank
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Cascade,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    Tensor,
    accesses,
    arranged,
    given_indices,
    iteration_ranks,
    rank_values,
    reads,
    reduced_ranks,
    target_ranks,
)
from fusemodel.cascade.plan import plan
from fusemodel.cascade.splits import Piece, Splits, parts_of, tiling
from fusemodel.errors import InputError, Where, unknown


def infer_tensors(
    einsums: Sequence[Einsum],
    inputs: Mapping[str, tuple[str, ...]],
    declared: Mapping[str, tuple[str, ...]],
    places: Mapping[str, Where],
    split: Splits,
    parameters: Collection[str] = (),
) -> dict[str, Tensor]:
    """The ranks of every tensor: declared for inputs, read off the left sides otherwise.

    A tensor that a selection makes, or that stands in an index, holds coordinates of a rank. What is computed from
    parameters alone carries no batch ranks either.
    """
    tensors = {n: Tensor(n, ranks, at=places.get(n, Where())) for n, ranks in inputs.items()}
    readers = [a for e in einsums for a in reads(e)]
    by_name: dict[str, list[Einsum]] = {}
    for e in einsums:
        by_name.setdefault(e.name, []).append(e)
    selects = {e.name: e.selection.rank for e in einsums if e.selection}
    for name, definitions in by_name.items():
        if name in inputs:
            raise InputError(f"tensor {name!r} is an input and cannot be defined", definitions[0].at)
        tensors[name] = _infer(name, definitions, readers, declared.get(name), selects, split)
    for access in (*readers, *(e.target for e in einsums)):
        held = tensors[access.tensor].ranks if access.tensor in tensors else ()
        for rank, index in given_indices(split, held, access.indices):
            for chooser in _outer_accesses(index):
                selects.setdefault(chooser, rank)
    fixed = _fixed(by_name, parameters)
    return {n: replace(t, selects=selects.get(n), batched=n not in fixed) for n, t in tensors.items()}


def _fixed(by_name: Mapping[str, Sequence[Einsum]], parameters: Collection[str]) -> set[str]:
    """Parameters, and the tensors whose equations read nothing else."""
    fixed = set(parameters)
    needs = {n: {a.tensor for e in es for a in reads(e)} - {n} for n, es in by_name.items()}
    while more := {n for n, read in needs.items() if n not in fixed and read and read <= fixed}:
        fixed |= more
    return fixed


def _outer_accesses(index: Expr) -> Iterator[str]:
    """The tensors whose values an index is made of (not those inside the indices of these)."""
    if isinstance(index, Access):
        yield index.tensor
    elif isinstance(index, Apply):
        for arg in index.args:
            yield from _outer_accesses(arg)


def _infer(
    name: str,
    definitions: list[Einsum],
    readers: list[Access],
    declared: tuple[str, ...] | None,
    selects: Mapping[str, str],
    split: Splits,
) -> Tensor:
    main = next((d for d in definitions if any(step_rank(i) for i in d.target.indices)), definitions[-1])
    if declared is None:
        ranks = [
            i.rank if isinstance(i, RankValue) else step_rank(i) or _scatter_rank(name, d, i, main, readers, selects)
            for d, i in enumerate(main.target.indices)
        ]
    else:
        ranks = _ranks_as_declared(name, main, declared, split)
    if len(set(ranks)) != len(ranks):
        raise InputError(f"tensor {name!r} holds a rank twice: {', '.join(ranks)}", main.at)
    stepped = {step_rank(i) for i in main.target.indices}
    return Tensor(name, tuple(ranks), frozenset(r for r in ranks if r in stepped), at=main.at)


def _ranks_as_declared(name: str, main: Einsum, declared: tuple[str, ...], split: Splits) -> list[str]:
    """The ranks of an output that is declared: written by the parts of one of them, or by the whole of several, it
    holds what it is written by; a computed index scatters over what is declared."""
    indices = main.target.indices
    pieces = arranged(split, declared, indices)
    if pieces is None or not all(p.plain or _is_whole(split, p, indices) for p in pieces):
        raise InputError(
            f"{name!r} has {len(indices)} indices, but is declared with {len(declared)} ranks", main.at,
            expected=f"[{', '.join(declared)}], each by itself or by its parts",
        )  # fmt: skip
    ranks: list[str] = []
    for piece in pieces:
        written = not piece.plain and all(indices[j] == RankValue(r) for r, j in piece.given)
        ranks += [r for r, _ in piece.given] if written else piece.ranks
    return ranks


def _is_whole(split: Splits, piece: Piece, indices: Sequence[Expr]) -> bool:
    """Whether indices stand for the very rank that is declared, not for another of its extent, and take no step."""
    given = [r for r, _ in piece.given]
    stepped = any(step_rank(indices[j]) == r for r, j in piece.given)
    return tiling(split, piece.whole, given) == len(given) and not stepped


def _scatter_rank(name, position, index, main, readers, selects) -> str:
    """The rank that a computed left-side index runs over: what an index tensor selects, or how the result is read."""
    if isinstance(index, Access) and index.tensor in selects:
        return selects[index.tensor]
    for reader in readers:
        index_read = reader.indices[position] if position < len(reader.indices) else None
        if reader.tensor == name and isinstance(index_read, RankValue):
            return index_read.rank
    if isinstance(index, Number) and not any(step_rank(i) for i in main.target.indices):
        raise InputError(
            f"{name!r} is started at index {index.value:g} but has no step", main.at,
            expected=f"a second equation with `{name}[i+1, ...]` on the left",
        )  # fmt: skip
    raise InputError(
        f"the rank of index {position + 1} of {name!r} is not known", main.at,
        expected=f"`outputs: {{{name}: [rank, ...]}}`, or an Einsum that reads {name!r} by that rank",
    )  # fmt: skip


def check(cascade: Cascade) -> None:
    """Raise InputError for the first thing that is wrong."""
    _check_names(cascade)
    _check_definitions(cascade)
    for einsum in cascade.einsums:
        _check_einsum(cascade, einsum)
    _check_used(cascade)
    plan(cascade)  # raises for a cyclic definition


def _check_names(cascade: Cascade) -> None:
    capitals = {r.upper(): r for r in cascade.ranks}
    for name, tensor in cascade.tensors.items():
        if name in capitals:
            raise InputError(f"tensor {name!r} bears the name of the extent of rank {capitals[name]!r}", tensor.at)
        if name in cascade.ranks:
            raise InputError(f"tensor {name!r} bears the name of a rank", tensor.at)
        for rank in tensor.ranks:
            if rank not in cascade.ranks:
                raise unknown("rank", rank, cascade.ranks, tensor.at)
    for name in cascade.outputs:
        if name not in cascade.tensors:
            where = cascade.places.get(f"outputs.{name}", Where(cascade.file))
            raise unknown("output tensor", name, cascade.tensors, where)
        if name in cascade.inputs:
            raise InputError(f"output {name!r} is an input", cascade.tensors[name].at)


def _check_definitions(cascade: Cascade) -> None:
    for name in dict.fromkeys(e.name for e in cascade.einsums):
        tensor = cascade.tensors[name]
        definitions = cascade.definitions(name)
        for definition in definitions:
            _check_count(cascade, definition.target)
        if not tensor.iterative:
            if len(definitions) > 1:
                raise InputError(f"tensor {name!r} is defined twice", definitions[1].at)
            continue
        steps = [d for d in definitions if any(step_rank(i) for i in d.target.indices)]
        starts = [d for d in definitions if d not in steps]
        if len(steps) > 1:
            raise InputError(f"tensor {name!r} has two steps", steps[1].at)
        rank = next(iter(tensor.iterative))
        indices = ["0" if r in tensor.iterative else r for r in tensor.ranks]
        example = f"{name}[{', '.join(indices)}] = ..."
        missing = set(tensor.iterative)
        for definition in definitions:
            _check_positions(cascade, tensor, definition)
        for start in starts:
            given = given_indices(cascade.split, tensor.ranks, start.target.indices)
            zeros = {r for r, index in given if r in tensor.iterative and index == Number(0)}
            if not zeros:
                raise InputError(f"the start of {name!r} is not at index 0 of {rank!r}", start.at, expected=example)
            missing -= zeros
        if missing:
            raise InputError(f"iterative rank {min(missing)!r} of {name!r} has no start", steps[0].at, expected=example)


def _check_positions(cascade: Cascade, tensor: Tensor, definition: Einsum) -> None:
    """All equations of an iterative tensor run along its ranks by the same names."""
    for rank, index in given_indices(cascade.split, tensor.ranks, definition.target.indices):
        other = index.rank if isinstance(index, RankValue) else step_rank(index)
        if other and (other != rank or rank not in tensor.ranks):
            of = rank if rank in tensor.ranks else ", ".join(tensor.ranks)
            raise InputError(
                f"{tensor.name!r} runs along {other!r} here and along {of!r} in its step", definition.target.at,
                expected=f"the ranks [{', '.join(tensor.ranks)}] in every equation of {tensor.name!r}",
            )  # fmt: skip


def _check_count(cascade: Cascade, access: Access) -> None:
    tensor = cascade.tensors[access.tensor]
    if arranged(cascade.split, tensor.ranks, access.indices) is None:
        raise InputError(
            f"{access.tensor!r} has {len(access.indices)} indices", access.at,
            expected=f"{len(tensor.ranks)}: [{', '.join(tensor.ranks)}]",
        )  # fmt: skip


def _check_einsum(cascade: Cascade, einsum: Einsum) -> None:
    for access in reads(einsum):
        if access.tensor not in cascade.tensors and not access.indices:
            scalars = [n for n, t in cascade.tensors.items() if not t.ranks]
            raise unknown("rank", access.tensor, [*cascade.ranks, *scalars], access.at)
        if access.tensor not in cascade.tensors:
            raise unknown("tensor", access.tensor, cascade.tensors, access.at)
        _check_count(cascade, access)
        _check_range(cascade, access)
    left, ranks = set(target_ranks(einsum)), iteration_ranks(einsum)
    right = set(rank_values(einsum.body)) | set(rank_values(einsum.where))
    reduced = reduced_ranks(einsum)
    _check_reduction(cascade, einsum, left, right)
    left_over = [r for r in ranks if r not in left and r not in reduced]
    for rank in left_over:
        if rank not in cascade.carried(einsum.name):
            raise InputError(
                f"rank {rank!r} is neither on the left nor reduced", einsum.at,
                expected=f"it in the reduction: [{', '.join((*reduced, rank))}]",
            )  # fmt: skip


def _check_reduction(cascade: Cascade, einsum: Einsum, left: set[str], right: set[str]) -> None:
    reduced = reduced_ranks(einsum)
    carried = cascade.carried(einsum.name)
    for rank in reduced if einsum.reduction or einsum.selection else ():
        if rank in carried:
            raise InputError(
                f"{einsum.name!r} carries the batch rank {rank!r}, which is reduced here", einsum.at,
                expected=f"`batch` without {rank!r}, and {rank!r} written in the tensors that hold it",
            )  # fmt: skip
    for rank in reduced if einsum.reduction else ():
        if rank not in right and not _scatters(einsum, rank):
            raise InputError(f"rank {rank!r} is reduced but does not stand on the right", einsum.at)
        if rank in left and not _scatters(einsum, rank):
            raise InputError(f"rank {rank!r} is reduced but stands on the left", einsum.at)
    if einsum.selection:
        rank, into = einsum.selection.rank, einsum.selection.into
        if rank in left:
            raise InputError(f"rank {rank!r} is searched but stands on the left", einsum.at)
        if into and into not in left:
            raise InputError(f"rank {into!r} is created but does not stand on the left", einsum.at)
        if into and (into in right or RankValue(into) not in einsum.target.indices):
            raise InputError(f"rank {into!r} is created here and cannot be an operand", einsum.at)


def _scatters(einsum: Einsum, rank: str) -> bool:
    return any(not isinstance(i, RankValue) and rank in rank_values(i) for i in einsum.target.indices)


def _check_range(cascade: Cascade, access: Access) -> None:
    """Constant indices must lie inside the tensor; affine ones may leave it (the element is then absent)."""
    tensor = cascade.tensors[access.tensor]
    for rank, index in given_indices(cascade.split, tensor.ranks, access.indices):
        iterative = rank in tensor.iterative
        if isinstance(index, Extent) and index.rank == rank and not iterative:
            raise InputError(
                f"index {rank.upper()} of {access.tensor!r} is out of range", access.at,
                expected=f"0 <= {rank} < {rank.upper()}",
            )  # fmt: skip
        if isinstance(index, Number) and (not isinstance(index.value, int) or index.value < 0):
            raise InputError(f"index {index.value} of {access.tensor!r} is out of range", access.at,
                             expected="a whole number from 0")  # fmt: skip
        if isinstance(index, RankValue) and index.rank in parts_of(cascade.split, rank):
            pair = cascade.split[rank]
            raise InputError(
                f"{access.tensor!r} is indexed by {index.rank!r} alone, a part of {rank!r}", access.at,
                expected=f"both parts: {pair[0]}, {pair[1]}",
            )  # fmt: skip


def _check_used(cascade: Cascade) -> None:
    used = {a.tensor for e in cascade.einsums for a in reads(e)}
    for name in cascade.inputs:
        if name not in used:
            raise InputError(f"input {name!r} is not used", cascade.tensors[name].at)
    for name, tensor in cascade.tensors.items():
        if name not in used and name not in cascade.outputs and name not in cascade.inputs:
            raise InputError(
                f"tensor {name!r} is computed but neither used nor an output", tensor.at,
                expected=f"`outputs: [{', '.join((*cascade.outputs, name))}]`, or an Einsum that reads it",
            )  # fmt: skip
    for einsum in cascade.einsums:
        for index in einsum.target.indices:
            for access in accesses(index):
                if cascade.tensors[access.tensor].selects is None:
                    raise InputError(f"{access.tensor!r} is not an integer tensor", access.at)


def check_ranges(cascade: Cascade, extents: Mapping[str, int]) -> None:
    """Raise InputError for a constant index, or a selection, beyond the extents."""
    for access, rank, index in cascade.fixed_indices:
        size = extents[rank] + (rank in cascade.tensors[access.tensor].iterative)
        value = extents[index.rank] if isinstance(index, Extent) else getattr(index, "value", None)
        if value is not None and value >= size:
            raise InputError(
                f"index {value} of {access.tensor!r} is out of range", access.at, expected=f"0 <= {rank} < {size}",
            )  # fmt: skip
    for einsum in cascade.einsums:
        selection = einsum.selection
        if selection and selection.into and extents[selection.into] > extents[selection.rank]:
            raise InputError(
                f"{selection.op} takes {extents[selection.into]} of {extents[selection.rank]} elements of "
                f"{selection.rank!r}", einsum.at, expected=f"{selection.into} <= {selection.rank}",
            )  # fmt: skip
