"""Expressions of the model in symbols: a graph in which no expression stands twice, in one canonical form.

The functions of the model compute with these as they do with numbers (:mod:`fusemodel.model.amounts`). Products are
kept flat and sorted, and parts of a rank whose product is the rank become the rank; sums are kept flat, and terms that
agree in what depends on tile sizes are one term. So what is the same for every candidate separates by itself from what
varies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Any


class Untraceable(Exception):
    """A count that has no expression in symbols; the text says which."""


class Node:
    """An expression: ``op`` over ``args``. ``varies``: it depends on a tile size; it is from ``least`` to ``most``;
    ``at`` orders nodes, arguments first."""

    __slots__ = ("args", "at", "graph", "least", "most", "name", "op", "value", "varies")

    def __init__(self, graph: Graph, op: str, args: tuple[Node, ...], name: str, value: float, varies: bool) -> None:
        self.graph, self.op, self.args, self.name, self.value, self.varies = graph, op, args, name, value, varies
        self.least, self.most = _range(op, args, value)
        self.at = len(graph.nodes)
        graph.nodes.append(self)

    def __repr__(self) -> str:
        if self.op in ("number", "symbol"):
            return self.name or f"{self.value:g}"
        return f"{self.name or self.op}({', '.join(map(repr, self.args))})"

    def __bool__(self) -> bool:
        raise Untraceable(f"a decision on {self!r}")

    def __add__(self, other: Any) -> Node:
        return self.graph.add((self, other))

    def __sub__(self, other: Any) -> Node:
        return self.graph.add((self, self.graph.multiply((-1, other))))

    def __rsub__(self, other: Any) -> Node:
        return self.graph.add((other, self.graph.multiply((-1, self))))

    def __mul__(self, other: Any) -> Node:
        return self.graph.multiply((self, other))

    def __truediv__(self, other: Any) -> Node:
        return self.graph.multiply((self, self.graph.apply("recip", other)))

    def __rtruediv__(self, other: Any) -> Node:
        return self.graph.multiply((other, self.graph.apply("recip", self)))

    def __neg__(self) -> Node:
        return self.graph.multiply((-1, self))

    def __gt__(self, other: Any) -> Node:
        return self.graph.apply("gt", self, other)

    def __lt__(self, other: Any) -> Node:
        return self.graph.apply("gt", other, self)

    def __ge__(self, other: Any) -> Node:
        return self.graph.apply("ge", self, other)

    def __le__(self, other: Any) -> Node:
        return self.graph.apply("ge", other, self)

    def __or__(self, other: Any) -> Node:
        return self.graph.apply("max", self, other)

    def __and__(self, other: Any) -> Node:
        return self.graph.apply("min", self, other)

    __radd__, __rmul__, __ror__, __rand__ = __add__, __mul__, __or__, __and__


@dataclass(frozen=True)
class Choice:
    """One of some names: that at the place ``code``."""

    names: tuple[str, ...]
    code: Node


class Graph:
    """Every expression once. ``wholes`` has, for a symbol, those whose product it always is."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.wholes: list[tuple[Node, tuple[Node, ...]]] = []
        self._known: dict[tuple[Any, ...], Node] = {}

    def symbol(self, name: str, *, varies: bool = False) -> Node:
        return self._node("symbol", (), name, varies=varies)

    def number(self, value: float) -> Node:
        return self._node("number", (), "", float(value))

    def node(self, value: Any) -> Node:
        return value if isinstance(value, Node) else self.number(value)

    def _node(self, op: str, args: tuple[Node, ...], name: str = "", value: float = 0.0, varies: bool = False) -> Node:
        key = (op, tuple(a.at for a in args), name, value)
        if key not in self._known:
            self._known[key] = Node(self, op, args, name, value, varies or any(a.varies for a in args))
        return self._known[key]

    def apply(self, op: str, *operands: Any) -> Node:
        """An operation that is neither a sum nor a product: ``max min gt ge select ceildiv floordiv ratio
        recip``."""
        args = tuple(self.node(x) for x in operands)
        if all(a.op == "number" for a in args):
            return self.number(calculate(op, *(a.value for a in args)))
        if op in ("max", "min"):
            return self._extreme(op, args)
        if op == "select":
            return self._select(*args)
        if op == "ceildiv" and args[1].op == "number" and args[1].value == 1:
            return args[0]
        return self._node(op, args)

    def all(self, conditions: Iterable[Node]) -> Node:
        """Whether every condition holds."""
        return self.apply("min", 1, *conditions)

    def distinct(self, strides: Sequence[Any], counts: Sequence[Any], offsets: Sequence[int]) -> Node:
        """Distinct values of ``sum(stride * i) + offset``, ``0 <= i < count``, for any of the offsets
        (:func:`fusemodel.model.elements.values`)."""
        terms = [(self.node(s), self.node(n)) for s, n in zip(strides, counts, strict=True)]
        terms = [(s, n) for s, n in terms if not (_is(s, 0) or _is(n, 1))]
        if not terms:
            return self.number(len(set(offsets)))
        if len(terms) == 1 and len(set(offsets)) == 1:
            return terms[0][1]
        operands = [len(terms), *(x for term in terms for x in term), *sorted(set(offsets))]
        return self._node("distinct", tuple(self.node(x) for x in operands))

    def count(self, name: str, operands: Iterable[Any]) -> Node:
        """A number that is looked up by some sizes."""
        return self._node("count", tuple(self.node(x) for x in operands), name)

    def _select(self, condition: Node, a: Node, b: Node) -> Node:
        if a is b or condition.op == "number":
            return a if condition.op != "number" or condition.value else b
        holds = condition.args if condition.op == "max" else (condition,)
        if _is(b, 1) and a.op == "symbol" and any(h.op == "gt" and h.args[0] is a and _is(h.args[1], 1) for h in holds):
            return a  # a size is at least 1: where it is not more, it is 1 too
        return self._node("select", (condition, a, b))

    def _extreme(self, op: str, args: Sequence[Node]) -> Node:
        """A maximum or minimum, flat, each argument once."""
        best, bound = (max, -inf) if op == "max" else (min, inf)
        found: dict[int, Node] = {}
        for a in (x for arg in args for x in (arg.args if arg.op == op else (arg,))):
            if a.op == "number":
                bound = best(bound, a.value)
            else:
                found[a.at] = a
        rest = [found[at] for at in sorted(found)]
        ends = [(n.least, n.most) for n in rest]
        if op == "max":
            needed, alone = all(least < bound for least, _ in ends), all(most <= bound for _, most in ends)
        else:
            needed, alone = all(most > bound for _, most in ends), all(least >= bound for least, _ in ends)
        if alone:
            return self.number(bound)
        if needed:
            rest.append(self.number(bound))
        return rest[0] if len(rest) == 1 else self._node(op, tuple(rest))

    def multiply(self, operands: Iterable[Any]) -> Node:
        factors: list[Node] = []
        coefficient = 1.0
        for operand in operands:
            if not isinstance(operand, Node):
                coefficient *= operand
            elif operand.op == "number":
                coefficient *= operand.value
            elif operand.op == "mul":
                first = operand.args[0]
                coefficient *= first.value if first.op == "number" else 1.0
                factors += operand.args[first.op == "number" :]
            else:
                factors.append(operand)
        if coefficient == 0:
            return self.number(0)
        for whole, parts in self.wholes:
            while all(p in factors for p in parts):
                for p in parts:
                    factors.remove(p)
                factors.append(whole)
        rest = sorted(factors, key=_order)
        if coefficient != 1 or not rest:
            rest.insert(0, self.number(coefficient))
        return rest[0] if len(rest) == 1 else self._node("mul", tuple(rest))

    def add(self, operands: Iterable[Any]) -> Node:
        """Terms that agree in their factors that vary are one, with the sum of the others as its coefficient."""
        terms: dict[tuple[Node, ...], dict[tuple[Node, ...], float]] = {}
        for operand in operands:
            for term in _terms(self.node(operand)):
                factors = _factors(term)
                number = factors[0].value if factors[0].op == "number" else 1.0
                fixed = tuple(f for f in factors if not f.varies and f.op != "number")
                inner = terms.setdefault(tuple(f for f in factors if f.varies), {})
                inner[fixed] = inner.get(fixed, 0.0) + number
        found = []
        for varying, inner in terms.items():
            alike = [self.multiply((number, *fixed)) for fixed, number in inner.items() if number]
            if not alike:
                continue
            coefficient = alike[0] if len(alike) == 1 else self._node("add", _sorted(alike))
            if varying:
                found.append(self.multiply((coefficient, *varying)))
            else:
                found += _terms(coefficient)
        fixed = [t for t in found if not t.varies]
        rest = [t for t in found if t.varies]
        if len(fixed) > 1 and rest:
            fixed = [self._node("add", _sorted(fixed))]
        every = _sorted([*fixed, *rest])
        return self.number(0) if not every else every[0] if len(every) == 1 else self._node("add", every)


def _order(node: Node) -> tuple[bool, int]:
    """What is the same for every candidate first."""
    return node.varies, node.at


def _sorted(nodes: Iterable[Node]) -> tuple[Node, ...]:
    return tuple(sorted(nodes, key=_order))


def _range(op: str, args: Sequence[Node], value: float) -> tuple[float, float]:
    """Numbers that an expression is never below and above, symbols being sizes or numbers of a machine."""
    match op:
        case "number":
            return value, value
        case "gt" | "ge":
            return 0.0, 1.0
        case "max" | "min":
            best = max if op == "max" else min
            return best(a.least for a in args), best(a.most for a in args)
        case "select":
            return min(a.least for a in args[1:]), max(a.most for a in args[1:])
        case _:
            return (0.0 if all(a.least >= 0 for a in args) else -inf), inf


def _is(node: Node, value: float) -> bool:
    return node.op == "number" and node.value == value


def _factors(node: Node) -> tuple[Node, ...]:
    return node.args if node.op == "mul" else (node,)


def _terms(node: Node) -> tuple[Node, ...]:
    """The terms of a sum, those of a sum within it that is the same for all candidates among them."""
    if node.op != "add":
        return (node,)
    return tuple(t for a in node.args for t in (_terms(a) if a.op == "add" else (a,)))


def calculate(op: str, *x: float) -> float:
    """The value of an operation on numbers."""
    match op:
        case "max":
            return max(x)
        case "min":
            return min(x)
        case "gt":
            return float(x[0] > x[1])
        case "ge":
            return float(x[0] >= x[1])
        case "select":
            return x[1] if x[0] else x[2]
        case "ceildiv":
            return float(ceil(x[0] / x[1]))
        case "ratio":
            return x[0] / x[1] if x[1] > 0 else 0.0
        case "recip":
            return 1 / x[0] if x[0] else inf
        case "floordiv":
            return x[0] // x[1] if x[1] else inf
    raise ValueError(op)
