"""How far the numbers of a cascade are from an independent reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fusemodel.cascade.ir import Cascade
from fusemodel.errors import InputError, Where
from fusemodel.numerics.inputs import complete_extents, random_inputs
from fusemodel.numerics.interpret import DTypeName, run
from fusemodel.numerics.labelled import Labelled, Problem
from fusemodel.numerics.reference import Reference, reference_named

T = TypeVar("T")


@dataclass(frozen=True)
class Comparison:
    """``max_abs_error`` is the largest difference of any output element; ``max_rel_error`` the largest, over outputs,
    of the largest difference divided by the largest magnitude of the reference. Both are infinite where one side is NaN
    or absent and the other is not, and None without a reference. ``points`` counts the points of all iteration spaces.
    """

    cascade: str
    max_abs_error: float | None
    max_rel_error: float | None
    points: int
    extents: Mapping[str, int]
    dtype: str
    has_reference: bool


def compare(
    cascade: Cascade,
    extents: Mapping[str, int] | None = None,
    *,
    inputs: Mapping[str, Any] | None = None,
    dtype: DTypeName = "float64",
    seed: int = 0,
) -> Comparison:
    """Execute a cascade in ``dtype``, and its reference on the same inputs in double precision."""
    sizes = complete_extents(cascade, inputs, extents)
    arrays = random_inputs(cascade, sizes, seed=seed, dtype=dtype) if inputs is None else inputs
    if cascade.reference is None:
        result = run(cascade, arrays, sizes, dtype=dtype)
        return Comparison(cascade.name, None, None, result.points, sizes, dtype, False)
    reference = _at(cascade, lambda: reference_named(cascade.reference or ""))
    result = run(cascade, arrays, sizes, dtype=dtype)
    expected = _expected(cascade, reference, arrays, sizes)
    errors = [error_of(result.outputs[n], expected[n]) for n in cascade.outputs]
    worst = [max(part) for part in zip(*errors, strict=True)]
    return Comparison(cascade.name, worst[0], worst[1], result.points, sizes, dtype, True)


def error_of(found: NDArray[Any], expected: NDArray[Any]) -> tuple[float, float]:
    """The largest absolute error, and that divided by the largest finite magnitude expected."""
    x, y = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if x.shape != y.shape:
        return math.inf, math.inf
    with np.errstate(invalid="ignore"):
        gaps = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
    gaps[np.isnan(gaps)] = math.inf
    worst = float(gaps.max(initial=0.0))
    scale = float(np.abs(y[np.isfinite(y)]).max(initial=0.0))
    return worst, worst / scale if scale else (0.0 if worst == 0 else math.inf)


def _expected(
    cascade: Cascade, reference: Reference, inputs: Mapping[str, Any], extents: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    labelled = {}
    for tensor in cascade.inputs:
        values = np.asarray(inputs[tensor])
        values = values.astype(np.float64) if values.dtype.kind == "f" else values
        labelled[tensor] = Labelled(values, cascade.full_ranks(tensor))
    outputs = {n: cascade.declared_ranks(n) for n in cascade.outputs}
    with np.errstate(all="ignore"):
        made = _at(cascade, lambda: reference(Problem(labelled, outputs, extents)))
    for output in outputs:
        if output not in made:
            raise InputError(f"the reference {cascade.reference!r} makes no {output!r}", _place(cascade))
    return {n: np.asarray(made[n]) for n in outputs}


def _place(cascade: Cascade) -> Where:
    return cascade.places.get(".reference", Where(cascade.file))


def _at(cascade: Cascade, action: Callable[[], T]) -> T:
    """What an action returns, its errors given the place where the cascade names its reference."""
    where = _place(cascade)
    try:
        return action()
    except InputError as error:
        raise error.at(where) from None
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise InputError(f"the reference {cascade.reference!r} does not fit this cascade: {error}", where) from None
