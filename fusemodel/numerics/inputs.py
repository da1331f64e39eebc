"""Extents to execute a cascade at, and arrays to execute it on."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fusemodel.cascade.check import check_ranges
from fusemodel.cascade.extents import extents_of
from fusemodel.cascade.ir import Access, Apply, Cascade, Expr, Number, iteration_ranks
from fusemodel.errors import InputError, Where, unknown

FLOATING = ("float64", "float32")
MAX_POINTS = 2**20
_CAPS = [2**k for k in range(10, -1, -1)]
_KEEP = 0.7  # the share of true elements in a random condition


def test_extents(cascade: Cascade, overrides: Mapping[str, int] | None = None) -> dict[str, int]:  # noqa: PT028
    """Extents at which executing the cascade is quick, with some given.

    Those of the field ``test`` where there is one, but for those that do not go with what is given: as few as possible,
    those that come first in the file where there is a choice. They, or all where there is no ``test``, are cut to a
    power of two if they are plain numbers, the largest up to 1024 for which all others evaluate and no iteration space
    has more than 2^20 points (left as they are if none will do); the inner part of a split to a quarter of it, batch
    ranks to 2.
    """
    overrides = dict(overrides or {})
    given = {r: n for r, n in cascade.test.items() if r not in overrides}
    if cascade.test:
        try:
            return _evaluated(cascade, given | overrides)
        except InputError:
            if not overrides:
                raise
    free = _cut(cascade, cascade.ranks, overrides)
    if free is None:
        return _evaluated(cascade, overrides)
    for size in range(1, len(given)):
        for dropped in combinations(given, size):
            kept = {r: n for r, n in given.items() if r not in dropped}
            if sizes := _cut(cascade, dropped, kept | overrides):
                return sizes
    return free


test_extents.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks of its name


def _cut(cascade: Cascade, ranks: Collection[str], given: Mapping[str, int]) -> dict[str, int] | None:
    """Extents with those of some ranks cut until the cascade is quick to execute (or as quick as it gets); None if the
    others do not go together, whatever these are."""
    smallest: dict[str, int] | None = None
    for cap in (*_CAPS, sys.maxsize):
        if smallest and cap > _CAPS[0]:
            break
        try:
            sizes = _evaluated(cascade, {**_capped(cascade, ranks, cap), **given})
        except InputError:
            continue
        if all(_points(sizes, iteration_ranks(e)) <= MAX_POINTS for e in cascade.explicit):
            return sizes
        smallest = sizes
    return smallest


def _evaluated(cascade: Cascade, overrides: Mapping[str, int]) -> dict[str, int]:
    sizes = extents_of(cascade, overrides)
    check_ranges(cascade, sizes)
    return sizes


def _points(sizes: Mapping[str, int], ranks: tuple[str, ...]) -> int:
    return int(np.prod([sizes[r] for r in ranks], dtype=object))


def _capped(cascade: Cascade, ranks: Collection[str], cap: int) -> dict[str, int]:
    inner = {parts[1] for parts in cascade.split.values()}
    caps = {r: 2 if r in cascade.batch else max(1, cap // 4) if r in inner else cap for r in ranks}
    plain = {r: e.value for r, e in cascade.ranks.items() if r in caps and isinstance(e, Number)}
    return {r: min(int(value), caps[r]) for r, value in plain.items()}


def complete_extents(
    cascade: Cascade, inputs: Mapping[str, Any] | None, extents: Mapping[str, int] | None
) -> dict[str, int]:
    """The extents given, those the shapes of inputs imply, and :func:`test_extents` for the rest."""
    known = dict(extents or {})
    for name, given in (inputs or {}).items():
        if name in cascade.inputs:
            for rank, size in zip(cascade.full_ranks(name), _array(cascade, name, given).shape, strict=False):
                known.setdefault(rank, size)
    sizes = test_extents(cascade, known)
    elements = sum(_points(sizes, cascade.full_ranks(t)) for t in cascade.tensors)
    if 4 * elements > _memory():
        raise InputError(f"the tensors of {cascade.name!r} have {elements:,} elements, more than memory holds",
                         Where(cascade.file), expected="smaller extents")  # fmt: skip
    return sizes


def floating(dtype: str) -> str:
    """The name of a floating type that cascades run in."""
    if dtype not in FLOATING:
        raise unknown("dtype", str(dtype), FLOATING)
    return dtype


def _memory() -> int:
    """Bytes of this machine's memory; a guess where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**34


def _array(cascade: Cascade, name: str, given: Any) -> NDArray[Any]:
    where = cascade.tensors[name].at
    try:
        array = np.asarray(given)
    except ValueError:
        raise InputError(f"input {name!r} is no array", where, expected="numbers in rows of equal length") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"input {name!r} holds {array.dtype}", where, expected="numbers")
    return array


def random_inputs(
    cascade: Cascade, extents: Mapping[str, int], *, seed: int = 0, dtype: str = "float64"
) -> dict[str, NDArray[Any]]:
    """An array for each input, with axes in the order of ``cascade.full_ranks``: coordinates of the rank it indexes for
    an index, booleans for a bare condition, else standard normal (the same numbers in every ``dtype``)."""
    floating(dtype)
    if not isinstance(seed, int) or seed < 0:
        raise InputError(f"the seed is {seed!r}", expected="a whole number from 0")
    conditions = {name for e in cascade.einsums for name in _conditions(e.where)}
    arrays = {}
    for number, name in enumerate(cascade.inputs):
        generator = np.random.default_rng([seed, number])
        shape = [extents[r] for r in cascade.full_ranks(name)]
        if rank := cascade.tensors[name].selects:
            arrays[name] = generator.integers(0, extents[rank], shape)
        elif name in conditions:
            arrays[name] = generator.random(shape) < _KEEP
        else:
            arrays[name] = generator.standard_normal(shape).astype(dtype)
    return arrays


def _conditions(where: Expr | None) -> Iterator[str]:
    """Tensors that stand as conditions by themselves."""
    if isinstance(where, Access):
        yield where.tensor
    elif isinstance(where, Apply) and where.op in ("and", "or", "not"):
        for part in where.args:
            yield from _conditions(part)


def prepared(
    cascade: Cascade, inputs: Mapping[str, Any], extents: Mapping[str, int], dtype: DTypeLike
) -> dict[str, NDArray[Any]]:
    """The inputs as arrays of the right shapes and types; InputError for a missing, unknown or misshapen one."""
    for name in inputs:
        if name not in cascade.inputs:
            raise unknown("input", name, cascade.inputs)
    arrays = {}
    for name in cascade.inputs:
        where = cascade.tensors[name].at
        if name not in inputs:
            raise InputError(f"no array is given for input {name!r}", where)
        array, ranks = _array(cascade, name, inputs[name]), cascade.full_ranks(name)
        shape = tuple(extents[r] for r in ranks)
        if array.shape != shape:
            raise InputError(f"input {name!r} has the shape {array.shape}", where,
                             expected=f"[{', '.join(ranks)}] = {shape}")  # fmt: skip
        arrays[name] = _typed(array, cascade.tensors[name].selects is not None, dtype)
    return arrays


def _typed(array: NDArray[Any], index: bool, dtype: DTypeLike) -> NDArray[Any]:
    if array.dtype.kind == "b" and not index:
        return array.copy()
    if index and array.dtype.kind != "f":
        return array.astype(np.int64)
    return array.astype(dtype)  # an index in floating point is checked where it is used
