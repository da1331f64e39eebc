"""Expressions to a tape: the instructions that give some of them, those that are the same for all candidates apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusemodel.model.compiled import machine
from fusemodel.model.expression import Node

_CODES = ("add", "mul", "max", "min", "gt", "ge", "ceildiv", "floordiv", "ratio", "recip")
_FOLDED = ("add", "mul", "max", "min")  # of any number of operands
_FIXED = 10  # the code of an operation on a fixed value is so much higher
_SELECT, _DISTINCT, _FILL, _LOAD, _STORE, _LOOK_UP = range(14, 20)
#: The column that says where each candidate finds its counts.
PLACES = "@"


@dataclass(frozen=True)
class Tape:
    """Instructions for :func:`fusemodel.model.compiled.kernel.prepare` and ``execute``. ``values`` has the numbers,
    with a place for each symbol that is ``fixed``; ``columns`` are the symbols that vary, and tables of counts that
    do. ``results`` has the place among values of each result, or None where it varies."""

    fixed: dict[str, int]
    values: np.ndarray
    first: np.ndarray
    columns: tuple[str, ...]
    code: np.ndarray
    lists: np.ndarray
    slots: int
    results: tuple[int | None, ...]


def tape_of(results: Sequence[Node], varying: Collection[str]) -> Tape:
    """A tape that computes some expressions where the symbols ``varying`` have a value for each candidate."""
    return _Writer(results, varying).tape()


class _Writer:
    """Writes instructions over registers, one for each value that varies; registers then share slots."""

    def __init__(self, results: Sequence[Node], varying: Collection[str]) -> None:
        self.results = results
        self.values: list[float] = []
        self.fixed: dict[str, int] = {}
        self.columns: list[str] = []
        self.first: list[tuple[int, ...]] = []
        self.code: list[tuple[int, ...]] = []
        self.lists: list[int] = []
        self.registers = 0
        self.place: dict[Node, int] = {}  # among values
        self.register: dict[Node, int] = {}
        self.known: dict[tuple[int, ...], int] = {}  # instructions written already
        self.varies: dict[Node, bool] = {}
        for node in _needed(results):
            of = {node.name} if node.op == "symbol" else {a.name for a in node.args} if node.op == "count" else ()
            varies = any(x in varying for x in of) or (not of and any(self.varies[a] for a in node.args))
            self.varies[node] = varies
            if varies:
                self.register[node] = self._varying(node)
            else:
                self.place[node] = self._fixed(node)

    def tape(self) -> Tape:
        stored = [r for r in self.results if self.varies[r]]
        code = [*self.code, *((_STORE, i, self.register[r], 0, 0) for i, r in enumerate(stored))]
        code, lists, slots = _in_slots(code, self.lists, self.registers)
        places = tuple(None if self.varies[r] else self.place[r] for r in self.results)
        return Tape(
            self.fixed, np.array(self.values), _rows(self.first), tuple(self.columns), _rows(code),
            np.array(lists, dtype=np.int64), slots, places,
        )  # fmt: skip

    def _value(self, number: float) -> int:
        self.values.append(number)
        return len(self.values) - 1

    def _fixed(self, node: Node) -> int:
        if node.op == "number":
            return self._value(node.value)
        if node.op in ("symbol", "count"):
            self.fixed[node.name] = self._value(np.nan)
            return self.fixed[node.name]
        return self._combined(node.op, [self.place[a] for a in node.args])

    def _combined(self, op: str, places: Sequence[int]) -> int:
        """The place of an operation on values."""
        if op == "select":
            return self._first(_SELECT, *places)
        if op == "distinct":
            self.lists += places
            return self._first(_DISTINCT, 0, len(self.lists) - len(places), len(places))
        found = places[0]
        if op not in _FOLDED:
            return self._first(_CODES.index(op), found, places[1] if len(places) > 1 else found)
        for place in places[1:]:
            found = self._first(_CODES.index(op), found, place)
        return found

    def _first(self, op: int, a: int, b: int, c: int = 0) -> int:
        if (-1, op, a, b, c) not in self.known or op == _DISTINCT:
            self.known[-1, op, a, b, c] = place = self._value(np.nan)
            self.first.append((op, place, a, b, c))
        return self.known[-1, op, a, b, c]

    def _varying(self, node: Node) -> int:
        if node.op == "symbol":
            self.columns.append(node.name)
            return self._write(_LOAD, len(self.columns) - 1)
        if node.op == "count":
            if PLACES not in self.columns:
                self.columns.append(PLACES)
            self.columns.append(node.name)
            return self._write(_LOOK_UP, len(self.columns) - 1, self.columns.index(PLACES))
        if node.op in _FOLDED:
            return self._folded(node)
        slots = [self._slot(a) for a in node.args]
        if node.op == "distinct":
            self.lists += slots
            return self._write(_DISTINCT, 0, len(self.lists) - len(slots), len(slots))
        if node.op == "select":
            return self._write(_SELECT, *slots)
        return self._write(_CODES.index(node.op), slots[0], slots[-1])

    def _folded(self, node: Node) -> int:
        """Operands one after another: those that vary, then at once all that are fixed."""
        op = _CODES.index(node.op)
        varying = [self.register[a] for a in node.args if self.varies[a]]
        fixed = [self.place[a] for a in node.args if not self.varies[a]]
        found = varying[0]
        for register in varying[1:]:
            found = self._write(op, found, register)
        return self._write(op + _FIXED, found, self._combined(node.op, fixed)) if fixed else found

    def _slot(self, node: Node) -> int:
        return self.register[node] if self.varies[node] else self._write(_FILL, self.place[node])

    def _write(self, op: int, a: int, b: int = 0, c: int = 0) -> int:
        if (op, a, b, c) not in self.known:
            self.known[op, a, b, c] = self.registers
            self.code.append((op, self.registers, a, b, c))
            self.registers += 1
        return self.known[op, a, b, c]


def _needed(results: Sequence[Node]) -> list[Node]:
    """Every expression that the results are made of, arguments first."""
    found: dict[int, Node] = {}
    pending = list(results)
    while pending:
        node = pending.pop()
        if node.at not in found:
            found[node.at] = node
            pending += node.args if node.op != "count" else ()
    return [found[at] for at in sorted(found)]


def _rows(code: Sequence[tuple[int, ...]]) -> np.ndarray:
    return np.array(code, dtype=np.int64).reshape(len(code), 5)


def _operands(line: tuple[int, ...], lists: Sequence[int]) -> tuple[int, ...]:
    """The registers that an instruction reads."""
    op, _, a, b, c = line
    if op in (_FILL, _LOAD, _LOOK_UP):
        return ()
    if op == _DISTINCT:
        return tuple(lists[b : b + c])
    if op == _SELECT:
        return a, b, c
    return (a,) if op >= _FIXED else (a, b)


def _in_slots(
    code: Sequence[tuple[int, ...]], lists: Sequence[int], registers: int
) -> tuple[list[tuple[int, ...]], list[int], int]:
    """Registers put into as few slots as there are values alive at a time. What is filled once stays for good; a result
    never takes the slot of an operand, so that loops may be vectorised."""
    last = [0] * registers
    for i, line in enumerate(code):
        for r in _operands(line, lists):
            last[r] = i
    filled = [line for line in code if line[0] == _FILL]
    slot = {line[1]: i for i, line in enumerate(filled)}
    kept, used, free = set(slot), len(slot), list[int]()
    placed = [(op, slot[d], a, b, c) for op, d, a, b, c in filled]
    moved = list(lists)
    for i, line in enumerate(code):
        op, d, a, b, c = line
        if op == _FILL:
            continue
        operands = _operands(line, lists)
        if op != _STORE:
            used += not free
            slot[d] = free.pop() if free else used - 1
        if op == _DISTINCT:
            moved[b : b + c] = [slot[r] for r in operands]
        elif operands:
            a, b, c = (*(slot[r] for r in operands), a, b, c)[:3] if len(operands) > 1 else (slot[a], b, c)
        placed.append((op, d if op == _STORE else slot[d], a, b, c))
        free += [slot[r] for r in dict.fromkeys(operands) if last[r] == i and r not in kept]
    return placed, moved, used


def run(
    tape: Tape, fixed: Mapping[str, float], columns: Mapping[str, np.ndarray], length: int, most: int
) -> list[np.ndarray]:
    """Each result, a column of ``length`` (one number, spread without taking space, where it does not vary)."""
    prepare, execute, _ = machine.entries()
    values = tape.values.copy()
    for name, place in tape.fixed.items():
        values[place] = fixed[name]
    prepare(tape.first, tape.lists, values)
    varying = sum(p is None for p in tape.results)
    found = np.empty((varying, length))
    given = [np.ascontiguousarray(columns[name], dtype=np.float64) for name in tape.columns]
    sources = np.array([g.ctypes.data for g in given], dtype=np.int64)
    targets = np.array([row.ctypes.data for row in found], dtype=np.int64)
    if varying:
        machine.in_parallel(
            lambda start, stop: execute(
                tape.code, tape.lists, values, sources, targets, tape.slots, start, stop
            ),
            length, most,
        )  # fmt: skip
    rows = iter(found)
    return [next(rows) if p is None else np.broadcast_to(values[p], (length,)) for p in tape.results]
