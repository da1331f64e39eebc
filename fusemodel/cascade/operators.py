"""The operators of the language: their arity, and the hardware operation each one counts as.

The numeric meaning is in :mod:`fusemodel.numerics`; what an operation costs is said by an architecture file.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Operator:
    """``arity`` is (least, most) operands; ``cost`` the hardware operation, empty where it costs nothing."""

    name: str
    arity: tuple[int, int]
    cost: str


_MANY = 64
_UNARY = (
    "abs", "exp", "exp2", "log", "sqrt", "rsqrt", "recip", "sigmoid", "tanh", "relu", "elu", "gelu", "silu", "softplus",
    "sin", "cos", "floor", "round",
)  # fmt: skip
_COSTS: dict[str, tuple[tuple[int, int], str]] = {
    "+": ((2, 2), "add"),
    "-": ((2, 2), "sub"),
    "neg": ((1, 1), ""),  # folded into the operation that uses it
    "*": ((2, 2), "mul"),
    "/": ((2, 2), "divide"),
    "//": ((2, 2), "divide"),
    "%": ((2, 2), "divide"),
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), ((2, 2), "compare")),
    "and": ((2, _MANY), "logic"),
    "or": ((2, _MANY), "logic"),
    "not": ((1, 1), "logic"),
    "min": ((2, _MANY), "min"),
    "max": ((2, _MANY), "max"),
    "select": ((3, 3), "select"),
    "coalesce": ((1, _MANY), ""),
    "pow": ((2, 2), "pow"),
    **{op: ((1, 1), op) for op in _UNARY},
}

OPERATORS: dict[str, Operator] = {name: Operator(name, *rest) for name, rest in _COSTS.items()}

#: Reductions, with the hardware operation of one step.
REDUCTIONS: dict[str, str] = {
    "sum": "add",
    "mean": "add",
    "max": "max",
    "min": "min",
    "prod": "mul",
    "any": "logic",
    "all": "logic",
}

#: Selections, with the hardware operation of one comparison. ``sort`` and ``topk`` create a rank.
SELECTIONS: dict[str, str] = {"topk": "compare", "argmax": "compare", "argmin": "compare", "sort": "compare"}

COMPARISONS = frozenset(("<", "<=", ">", ">=", "==", "!="))
INFIX = frozenset(("+", "-", "*", "/", "//", "%")) | COMPARISONS


def register(name: str, *, arity: int = 1, cost: str = "") -> None:
    """Make an operator known to the language. Its cost is that of the hardware operation ``cost`` (its own name by
    default), which an architecture's ``ops`` prices. See :func:`fusemodel.numerics.register` for its meaning."""
    OPERATORS[name] = Operator(name, (arity, arity), cost or name)
