"""What a mapping says of blocks: ragged tiles, and how blocks are handed out to the instances of a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fusemodel.arch import Architecture
from fusemodel.cascade import Cascade
from fusemodel.cascade.ir import Extent
from fusemodel.cascade.parse import Names, parse_expression
from fusemodel.errors import InputError, unknown
from fusemodel.mapping.spec import GroupSpec
from fusemodel.specfile import Place
from fusemodel.yamlfile import Document


def with_splits(cascade: Cascade, doc: Document, splits: Mapping[str, Sequence[str]]) -> Cascade:
    """A cascade whose ranks the mapping divides too; the inner part is the whole rank unless ``tile`` has it."""
    ranks, split, places = dict(cascade.ranks), dict(cascade.split), dict(cascade.places)
    for rank, parts in splits.items():
        where = doc.where("split", rank)
        if rank not in ranks or rank in cascade.batch:
            raise unknown("rank", rank, [r for r in ranks if r not in cascade.batch], doc.where_key("split", rank))
        if rank in split:
            raise InputError(f"rank {rank!r} is split by the cascade already", where)
        if len(parts) != 2:
            raise InputError(f"{rank!r} is split into {len(parts)} parts", where, expected=f"[{rank}1, {rank}0]")
        for part in parts:
            if part in ranks or not part.isidentifier() or part != part.lower() or part == "all":
                raise InputError(f"{part!r} cannot name a part of {rank!r}", where, expected="a new lower-case name")
        outer, inner = parts
        ranks[inner] = Extent(rank)
        ranks[outer] = parse_expression(
            f"ceil({rank} / {inner})", Names(dict.fromkeys(ranks), extents_only=True), where
        )
        split[rank] = (outer, inner)
        places |= dict.fromkeys((outer, inner), where)
    return replace(cascade, ranks=ranks, split=split, places=places) if splits else cascade


def checked_grid(
    spec: GroupSpec, loops: tuple[str, ...], grid: tuple[str, ...], cascade: Cascade, arch: Architecture, place: Place
) -> tuple[str, ...]:
    """The loops whose steps are blocks, checked together with what else says how they run."""
    if grid != loops[: len(grid)]:
        raise InputError("'grid' is not the outermost loops", place(("grid",), False),
                         expected=f"the first of `loops: [{', '.join(loops)}]`")  # fmt: skip
    if grid and not spec.interleave:
        raise InputError("blocks run side by side, which interleaves them", place(("interleave",), True))
    for i, level in enumerate(spec.exposed):
        own = [n for n, v in arch.levels.items() if v.per_instance and v.bandwidth_bytes_per_s]
        if level not in own:
            raise unknown("level of an instance", level, own, place(("exposed", i), False))
    for tensor in spec.multicast:
        if tensor not in cascade.tensors:
            raise unknown("tensor", tensor, cascade.tensors, place(("multicast", tensor), True))
    if spec.skip is not None and spec.skip not in spec.bind:
        raise unknown("Einsum", spec.skip, spec.bind, place(("skip",), False))
    for field in ("launch", "prologue", "step"):
        name = getattr(spec, field)
        if name is not None and name not in arch.overheads_s:
            raise unknown(f"overhead of {arch.name!r}:", name, arch.overheads_s, place((field,), False))
    return grid
