"""Arithmetic on amounts: plain numbers, NumPy arrays of them (one element a candidate), or expressions in symbols."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from fusemodel.model.expression import Choice, Graph, Node

#: A number, an array with one element for each candidate, or an expression.
Amount: TypeAlias = Any
Sizes: TypeAlias = Mapping[str, Amount]

_PLAIN = (int, float)


class Columns(dict[str, Amount]):
    """Sizes, some of them arrays of one ``length``, for any number of plans: ``known`` keeps what one has found for the
    others."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.length = next((len(n) for n in sizes.values() if isinstance(n, np.ndarray)), 1)
        self.known: dict[Any, Any] = {}

    def column(self, name: str) -> np.ndarray:
        """The size in each row, a whole number."""
        if name not in self.known:
            self.known[name] = np.zeros(self.length, dtype=np.int64) + np.asarray(self[name]).astype(np.int64)
        return self.known[name]

    def row(self, i: int) -> dict[str, int]:
        return {x: int(n[i]) if isinstance(n, np.ndarray) else int(n) for x, n in self.items()}

    def some(self, rows: np.ndarray) -> Columns:
        """The rows at which ``rows`` is true."""
        if rows.all():
            return self
        key = rows.tobytes()
        if key not in self.known:
            self.known[key] = Columns({x: n[rows] if isinstance(n, np.ndarray) else n for x, n in self.items()})
            self.known[key].length = int(rows.sum())
        return self.known[key]


def are_numbers(sizes: Sizes) -> bool:
    """Whether every size is a plain number."""
    return not any(isinstance(n, (np.ndarray, Node)) for n in sizes.values())


def _graph(*amounts: Amount) -> Graph | None:
    return next((a.graph for a in amounts if isinstance(a, Node)), None)


def maximum(a: Amount, b: Amount) -> Amount:
    if a.__class__ in _PLAIN and b.__class__ in _PLAIN:
        return a if a >= b else b
    if graph := _graph(a, b):
        return graph.apply("max", a, b)
    return np.maximum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else max(a, b)


def minimum(a: Amount, b: Amount) -> Amount:
    if a.__class__ in _PLAIN and b.__class__ in _PLAIN:
        return a if a <= b else b
    if graph := _graph(a, b):
        return graph.apply("min", a, b)
    return np.minimum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else min(a, b)


def ceil_div(a: Amount, b: Amount) -> Amount:
    if a.__class__ in _PLAIN and b.__class__ in _PLAIN:
        return -(-a // b)
    if graph := _graph(a, b):
        return graph.apply("ceildiv", a, b)
    return -(-a // b)


def floor_div(a: Amount, b: Amount) -> Amount:
    if graph := _graph(a, b):
        return graph.apply("floordiv", a, b)
    return a // b


def where(condition: Amount, a: Amount, b: Amount) -> Amount:
    if condition.__class__ is bool:
        return a if condition else b
    if graph := _graph(condition, a, b):
        return graph.apply("select", condition, a, b)
    return np.where(condition, a, b) if isinstance(condition, np.ndarray) else a if condition else b


def ratio(a: Amount, b: Amount) -> Amount:
    """a / b, and 0 where b is 0."""
    if a.__class__ in _PLAIN and b.__class__ in _PLAIN:
        return a / b if b else 0.0
    if graph := _graph(a, b):
        return graph.apply("ratio", a, b)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        some = np.asarray(b) > 0
        return np.where(some, a / np.where(some, b, 1), 0.0)
    return a / b if b else 0.0


def real(a: Amount) -> Amount:
    """A plain number as a float."""
    return a if isinstance(a, Node) else float(a)


def whole(a: Amount) -> Amount:
    """A plain number as an int."""
    return a if isinstance(a, Node) else int(a)


def present(a: Amount) -> bool:
    """Whether an amount is not zero for sure."""
    return isinstance(a, Node) or bool(a)


def product(leaves: Iterable[str], sizes: Sizes) -> Amount:
    total: Amount = 1
    for leaf in leaves:
        total = total * sizes[leaf]
    return total


def largest(names: Sequence[str | Choice], values: Sequence[Amount]) -> Amount:
    """The name with the largest value, the first among equals."""
    graph = _graph(*values) or next((n.code.graph for n in names if isinstance(n, Choice)), None)
    if graph is None:
        return names[max(range(len(names)), key=lambda i: values[i])]
    every = tuple(dict.fromkeys(x for n in names for x in (n.names if isinstance(n, Choice) else (n,))))
    best, code = values[0], _code(names[0], every, graph)
    for name, value in zip(names[1:], values[1:], strict=True):
        more = graph.apply("gt", value, best)
        code = graph.apply("select", more, _code(name, every, graph), code)
        best = graph.apply("max", value, best)
    return Choice(every, code)


def first(conditions: Sequence[tuple[str, Amount]], otherwise: str | Choice) -> Amount:
    """The first name whose condition holds."""
    found = otherwise
    for name, condition in reversed(conditions):
        graph = _graph(condition) or (found.code.graph if isinstance(found, Choice) else None)
        if graph is None:
            found = name if condition else found
            continue
        every = tuple(dict.fromkeys((name, *(found.names if isinstance(found, Choice) else (found,)))))
        found = Choice(every, graph.apply("select", condition, _code(name, every, graph), _code(found, every, graph)))
    return found


def _code(name: str | Choice, every: tuple[str, ...], graph: Graph) -> Node:
    """The place of a name among ``every``."""
    if isinstance(name, str):
        return graph.number(every.index(name))
    code = graph.number(every.index(name.names[0]))
    for i, one in enumerate(name.names[1:], 1):
        code = graph.apply("select", graph.apply("ge", name.code, i), every.index(one), code)
    return code
