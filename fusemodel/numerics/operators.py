"""What the operators mean on NumPy arrays.

Operands are integer, boolean or floating arrays. Where they differ, integers and booleans become the floating type of
the run, so that a coordinate or a constant never widens ``float32``; functions of a real variable do so always.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fusemodel.cascade.operators import INFIX, OPERATORS
from fusemodel.cascade.operators import register as register_name
from fusemodel.errors import InputError

Array = NDArray[Any]
Function = Callable[..., Any]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(x: Array) -> Array:
    return (0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))).astype(x.dtype)


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def _silu(x: Array) -> Array:
    return np.where(x == -np.inf, 0.0, x * _sigmoid(x))


#: Functions of a real variable: their operands are floating.
_REAL: dict[str, Function] = {
    "/": np.divide,
    "pow": np.power,
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "recip": lambda x: 1.0 / x,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": _gelu,
    "silu": _silu,
    "softplus": lambda x: np.logaddexp(x, np.zeros_like(x)),
    "sin": np.sin,
    "cos": np.cos,
}

#: Functions that keep integers as they are.
_ANY: dict[str, Function] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "//": np.floor_divide,
    "%": np.mod,
    "neg": np.negative,
    "abs": np.abs,
    "floor": lambda x: np.floor(x) if x.dtype.kind == "f" else x,
    "round": lambda x: np.rint(x) if x.dtype.kind == "f" else x,  # halves to even
    "relu": lambda x: np.maximum(x, np.zeros_like(x)),
    "min": lambda *xs: reduce(np.minimum, xs),
    "max": lambda *xs: reduce(np.maximum, xs),
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
    "select": lambda c, a, b: np.where(c.astype(bool), a, b),
}

_LOGIC: dict[str, Function] = {
    "and": lambda *xs: reduce(np.logical_and, xs),
    "or": lambda *xs: reduce(np.logical_or, xs),
    "not": np.logical_not,
}


def register(name: str, function: Function, *, arity: int = 1, cost: str = "") -> None:
    """Add an operator to the language: ``function`` takes ``arity`` floating arrays that broadcast against each other
    and returns an array of their common shape; ``cost`` is the hardware operation it counts as (its own name by
    default), priced by an architecture's ``ops``."""
    if not name.isidentifier() or name in INFIX or name in ("and", "or", "not", "coalesce", "ceil", "inf", "where"):
        raise InputError(f"{name!r} cannot name an operator", expected="a name that is not part of the language")
    if not callable(function):
        raise InputError(f"the meaning of operator {name!r} cannot be called", expected="a function of arrays")
    if arity < 1:
        raise InputError(f"operator {name!r} has {arity} operands", expected="at least 1")
    register_name(name, arity=arity, cost=cost)
    _ANY.pop(name, None)
    _REAL[name] = function


def as_float(x: Array, dtype: DTypeLike) -> Array:
    """Integers and booleans as numbers of the run's floating type."""
    return x if x.dtype.kind == "f" else x.astype(dtype)


def unify(operands: list[Array], dtype: DTypeLike) -> list[Array]:
    """All floating if one is, else all integer."""
    if any(x.dtype.kind == "f" for x in operands):
        return [as_float(x, dtype) for x in operands]
    return [x.astype(np.int64) if x.dtype.kind == "b" else x for x in operands]


def apply(op: str, operands: list[Array], dtype: DTypeLike) -> Array:
    """The operator ``op`` on arrays that broadcast against each other."""
    if op in _LOGIC:
        return _LOGIC[op](*(x.astype(bool) for x in operands))
    if op in _ANY:
        return np.asarray(_ANY[op](*unify(operands, dtype)))
    if op not in _REAL:
        raise InputError(
            f"operator {op!r} has no meaning on arrays",
            expected="`fusemodel.numerics.register(name, function)`" if op in OPERATORS else "an operator",
        )
    result = np.asarray(_REAL[op](*(as_float(x, dtype) for x in operands)))
    shape = np.broadcast_shapes(*(x.shape for x in operands))
    if result.shape != shape:
        raise InputError(f"operator {op!r} made an array of shape {result.shape}", expected=f"the shape {shape}")
    return result.astype(dtype, copy=False) if result.dtype.kind == "f" else result
