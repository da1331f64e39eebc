"""Results as SymPy expressions, to be read, simplified and plotted."""

from __future__ import annotations

import sympy

from fusemodel.model.expression import Node


def formula_of(node: Node) -> sympy.Expr:
    """An expression in SymPy. Conditions are 1 where they hold, else 0."""
    found: dict[int, sympy.Expr] = {}
    pending = [node]
    while pending:
        at = pending[-1]
        todo = [a for a in at.args if a.at not in found]
        pending += todo
        if not todo:
            found[pending.pop().at] = _one(at, [found[a.at] for a in at.args])
    return found[node.at]


def _one(node: Node, x: list[sympy.Expr]) -> sympy.Expr:
    match node.op:
        case "number":
            return sympy.Integer(int(node.value)) if node.value == int(node.value) else sympy.Float(node.value)
        case "symbol":
            whole = "." not in node.name
            return sympy.Symbol(node.name, positive=True, **({"integer": True} if whole else {}))
        case "add":
            return sympy.Add(*x)
        case "mul":
            return sympy.Mul(*x)
        case "max":
            return sympy.Max(*x)
        case "min":
            return sympy.Min(*x)
        case "gt":
            return sympy.Piecewise((1, sympy.Gt(*x)), (0, True))
        case "ge":
            return sympy.Piecewise((1, sympy.Ge(*x)), (0, True))
        case "select":
            return sympy.Piecewise((x[1], sympy.Ne(x[0], 0)), (x[2], True))
        case "ceildiv":
            return sympy.ceiling(x[0] / x[1])
        case "floordiv":
            return sympy.floor(x[0] / x[1])
        case "ratio":
            return x[0] / x[1]
        case "recip":
            return 1 / x[0]
    return sympy.Function(node.name or node.op)(*x)
