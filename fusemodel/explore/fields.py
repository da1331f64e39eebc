"""Fields of a file as expressions of variables: ``side``, ``2 * side``, ``700 * buffer_mib pJ``, ``base * size / 16``.

The number of a quantity may be an expression of variables, and ``base`` is the number that the field has in the file
that is varied, whose unit is taken where none is written. Text without a variable stands as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from fusemodel.cascade.extents import evaluate
from fusemodel.cascade.ir import Expr
from fusemodel.cascade.parse import Names, parse_expression
from fusemodel.errors import InputError, Where, unknown
from fusemodel.yamlfile import Document, Path_

Number = int | float
BASE = "base"

#: Names that a variable cannot have: operators of expressions, and what the tool gives.
RESERVED = frozenset({"and", "or", "not", "where", "inf", "abs", "min", "max", "floor", "ceil", "sqrt", "log", "exp",
                      "exp2", "pow", "select", BASE})  # fmt: skip

_NAME = re.compile(r"[A-Za-z_]\w*")
_SUFFIX = re.compile(r"(?P<body>.*[\w)])\s+(?P<suffix>[A-Za-zµ][\w^/µ]*)\s*", re.DOTALL)
_QUANTITY = re.compile(r"\s*(?P<number>[-+]?[0-9.]+(?:[eE][-+]?\d+)?)\s*(?P<unit>\S.*?)?\s*")


@dataclass(frozen=True)
class Formula:
    """An expression of variables as it was written, and the unit or operation that follows it."""

    text: str
    expr: Expr
    suffix: str
    where: Where

    def at(self, values: Mapping[str, Number]) -> Number:
        """Its number; InputError if it has none."""
        try:
            value = evaluate(self.expr, values)  # type: ignore[arg-type]  (floats are as exact as they are)
        except InputError as error:
            raise InputError(f"`{self.text}` cannot be computed at {shown(values)}: {error.message}", self.where,
                             expected=error.expected) from None  # fmt: skip
        if value != value or value in (float("inf"), float("-inf")):
            raise InputError(f"`{self.text}` is {value} at {shown(values)}", self.where, expected="a finite number")
        exact = Fraction(value)
        return int(exact) if exact.denominator == 1 else float(exact)


def shown(values: Mapping[str, Any]) -> str:
    """``side = 16, buffer_mib = 4`` for messages."""
    return ", ".join(f"{n} = {v:g}" if isinstance(v, float) else f"{n} = {v}" for n, v in values.items())


def formula(text: str, variables: Collection[str], where: Where, *, suffix: bool = False) -> Formula:
    """An expression of variables, with what may follow it as ``suffix``."""
    body, tail = text, ""
    found = _SUFFIX.fullmatch(text) if suffix else None
    if found and found["suffix"] not in variables and found["suffix"] not in RESERVED:
        body, tail = found["body"], found["suffix"]
    for name in _NAME.finditer(body):
        called = body[name.end() :].lstrip().startswith("(")
        number = body[: name.start()][-1:].isdigit()  # the suffix of 16K
        if not called and not number and name[0] not in variables and name[0] not in ("and", "or", "not", "inf"):
            raise unknown("variable", name[0], variables, Where(where.file, where.line, where.column + name.start()))
    return Formula(text.strip(), parse_expression(body, Names(variables, extents_only=True), where), tail, where)


def uses(text: Any, variables: Collection[str]) -> bool:
    """Whether some text is an expression of variables."""
    return isinstance(text, str) and any(n in variables for n in _NAME.findall(text))


Leaf = Formula | Any
Tree = Any  # of dictionaries and lists, with a leaf or a formula at each end


def compiled(doc: Document, path: Path_, value: Any, variables: Collection[str]) -> Tree:
    """A value of a file with a formula wherever its text uses variables."""
    if isinstance(value, dict):
        return {k: compiled(doc, (*path, k), v, variables) for k, v in value.items()}
    if isinstance(value, list):
        return [compiled(doc, (*path, i), v, variables) for i, v in enumerate(value)]
    known = {*variables, BASE}
    if not uses(value, known):
        return value
    return formula(value, known, doc.blocks.get(path) or doc.where(*path), suffix=True)


def filled(tree: Tree, base: Any, values: Mapping[str, Number]) -> Any:
    """A compiled value with its formulas computed, as plain data of a file; ``base`` is what stood there."""
    if isinstance(tree, dict):
        return {k: filled(v, base.get(k) if isinstance(base, dict) else None, values) for k, v in tree.items()}
    if isinstance(tree, list):
        old = base if isinstance(base, list) else []
        return [filled(v, old[i] if i < len(old) else None, values) for i, v in enumerate(tree)]
    if not isinstance(tree, Formula):
        return tree
    unit = tree.suffix
    if BASE in _NAME.findall(tree.text):
        number, written = _base(base, tree)
        values, unit = {**values, BASE: number}, unit or written
    result = tree.at(values)
    if not unit:
        return result
    return f"{result} {unit}" if isinstance(result, int) else f"{result:.17g} {unit}"


def _base(base: Any, tree: Formula) -> tuple[Number, str]:
    if isinstance(base, (int, float)) and not isinstance(base, bool):
        return base, ""
    found = _QUANTITY.fullmatch(base) if isinstance(base, str) else None
    if found is None:
        raise InputError(f"`{tree.text}` uses {BASE!r}, but the field is no number in the architecture", tree.where,
                         expected="a number for the field there, or an expression without it")  # fmt: skip
    return float(found["number"]), found["unit"] or ""
