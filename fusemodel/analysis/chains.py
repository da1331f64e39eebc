"""Lengths of chains of operations, as forms in the extents, and the longest ways through a loop of any number of steps.

Chains add up one after another and are maximised side by side (the max-plus algebra: Baccelli et al., Synchronization
and Linearity, 1992). Which chain is the longest depends on the extents, so all are kept that may be.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import product
from math import prod
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Extent:
    """The extent of a rank."""

    rank: str


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels of a binary tree over some ranks."""

    ranks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often ``steps`` steps fit into those of a rank less ``used``."""

    rank: str
    used: int
    steps: int


Atom: TypeAlias = Extent | Levels | Rounds
Product: TypeAlias = tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """A sum of products of atoms. There is such a chain where ranks have the extents of ``least``, or larger ones."""

    terms: frozenset[tuple[Product, int]] = frozenset()
    least: frozenset[tuple[str, int]] = frozenset()

    def __add__(self, other: Chain) -> Chain:
        return _chain((*self.terms, *other.terms), (*self.least, *other.least))

    def times(self, factor: Chain) -> Chain:
        """Every term times every term."""
        terms = [(_product((*a, *b)), c * d) for a, c in self.terms for b, d in factor.terms]
        return _chain(terms, (*self.least, *factor.least))

    def at(self, extents: Mapping[str, int]) -> int | None:
        """Its length at some extents; None if there it is not."""
        if any(extents[r] < n for r, n in self.least):
            return None
        return sum(c * prod(_value(a, extents) for a in atoms) for atoms, c in self.terms)

    def symbolic(self) -> Any:
        """Its length in SymPy symbols, zero where it is not; extents are at least 2."""
        import sympy

        length = sympy.Add(*(c * sympy.Mul(*(_symbolic(a) for a in atoms)) for atoms, c in self.terms))
        known = [_symbol(r) >= n for r, n in sorted(self.least) if n > 2]
        return sympy.Piecewise((length, sympy.And(*known)), (0, True)) if known else length


Chains: TypeAlias = tuple[Chain, ...]
#: The longest chains from each of several sources.
Row: TypeAlias = Mapping[Hashable, Chains]
NOTHING = Chain()


def operations(n: int, reduced: Sequence[str] = ()) -> Chain:
    """So many operations, after them a tree over some ranks."""
    return _chain([((), n), *([((Levels(tuple(sorted(reduced))),), 1)] if reduced else [])], ())


def longest(chains: Iterable[Chain], least: int = 1) -> Chains:
    """The chains without those that are never the longest, whatever extents from ``least`` on there are."""
    kept: list[Chain] = []
    for one in dict.fromkeys(chains):
        if not any(_within(one, other, least) for other in kept):
            kept = [other for other in kept if not _within(other, one, least)] + [one]
    return tuple(kept)


def joined(rows: Iterable[Row]) -> dict[Hashable, Chains]:
    """The longest of each source."""
    found: dict[Hashable, list[Chain]] = {}
    for row in rows:
        for source, chains in row.items():
            found.setdefault(source, []).extend(chains)
    return {source: longest(chains) for source, chains in found.items()}


def after(row: Row, chains: Chains) -> dict[Hashable, Chains]:
    """A row, and some chains behind it."""
    return {source: longest(a + b for a in before for b in chains) for source, before in row.items()}


def _chain(terms: Iterable[tuple[Product, int]], least: Iterable[tuple[str, int]]) -> Chain:
    total: dict[Product, int] = {}
    for atoms, c in terms:
        total[atoms] = total.get(atoms, 0) + c
    most: dict[str, int] = {}
    for rank, n in least:
        most[rank] = max(n, most.get(rank, 1))
    return Chain(frozenset((atoms, c) for atoms, c in total.items() if c), frozenset(most.items()))


def _product(atoms: Iterable[Atom]) -> Product:
    """The atoms in the order in which all products have them."""
    return tuple(sorted(atoms, key=repr))


@cache
def _within(one: Chain, other: Chain, any_least: int) -> bool:
    """Whether wherever there is the one, the other is there and no shorter (false if that is not plain to see)."""
    ranks = {a.rank for c in (one, other) for atoms, _ in c.terms for a in atoms if not isinstance(a, Levels)}
    least = dict.fromkeys([*ranks, *dict(other.least)], any_least)
    least |= {r: max(n, any_least) for r, n in one.least}
    if any(least[r] < n for r, n in other.least):
        return False
    more = _chain((*other.terms, *((a, -c) for a, c in one.terms)), ())
    rest: dict[Product, Fraction] = {}
    for atoms, c in more.terms:
        for chosen in product(*(_parts(a, c > 0, least) for a in atoms)):
            key = _product(a for atom, _ in chosen for a in atom)
            rest[key] = rest.get(key, Fraction(0)) + c * prod(n for _, n in chosen)
    return all(c >= 0 for c in rest.values())


def _parts(atom: Atom, added: bool, least: Mapping[str, int]) -> list[tuple[Product, Fraction]]:
    """An atom as a sum of what is not negative: of an extent, its least value and what is more. Of rounds that are
    taken away, the most there can be."""
    if isinstance(atom, Levels) or (isinstance(atom, Rounds) and added):
        return [((atom,), Fraction(1))]
    used, steps = (atom.used, atom.steps) if isinstance(atom, Rounds) else (0, 1)
    return [((Extent(atom.rank),), Fraction(1, steps)), ((), Fraction(least[atom.rank] - used, steps))]


def _value(atom: Atom, extents: Mapping[str, int]) -> int:
    match atom:
        case Extent(rank):
            return extents[rank]
        case Levels(ranks):
            return (prod(extents[r] for r in ranks) - 1).bit_length()
        case Rounds(rank, used, steps):
            return (extents[rank] - used) // steps


def _symbol(rank: str) -> Any:
    import sympy

    return sympy.Symbol(rank.upper(), positive=True, integer=True)


def _symbolic(atom: Atom) -> Any:
    import sympy

    match atom:
        case Extent(rank):
            return _symbol(rank)
        case Levels(ranks):
            return sympy.ceiling(sympy.log(sympy.Mul(*map(_symbol, ranks)), 2))
        case Rounds(rank, used, steps):
            return sympy.floor((_symbol(rank) - used) / steps)


# Loops


def through_loop(rank: str, step: Mapping[Hashable, Row], start: Mapping[Hashable, Row]) -> dict[Hashable, Row]:
    """The longest chains to each of some states before a step of a loop, whichever, from sources outside the loop.

    ``step`` has the chains to each state in one step, from states before it and from outside; ``start`` those to the
    state before the first step.
    """
    moves = {(a, b): chains for b, row in step.items() for a, chains in row.items() if a in step}
    outside = {b: {a: chains for a, chains in row.items() if a not in step} for b, row in step.items()}
    found: dict[Hashable, list[Row]] = {state: [] for state in step}
    for first in step:
        for row, used in ((start.get(first, {}), 1), (outside[first], 2)):
            if row:
                for state, chains in _walks(rank, moves, first, used).items():
                    found[state].append(after(row, chains))
    return {state: joined(rows) for state, rows in found.items()}


def _walks(
    rank: str, moves: Mapping[tuple[Hashable, Hashable], Chains], first: Hashable, used: int
) -> dict[Hashable, Chains]:
    """The longest walks of at most the steps of a rank less ``used``, to every state that they reach.

    A longest walk goes round one cycle as often as it can. What else it does is short: of as many other cycles as that
    one has steps, some take a whole number of its rounds together, and are no longer than these.
    """
    states = {first: None, **{s: None for move in moves for s in move}}
    cycles = _cycles(moves)
    largest = max((len(around) for around, _ in cycles), default=1)
    found: dict[Hashable, list[Chain]] = {}
    for pivot in (None, *states):
        rounds = _best([(len(around), one) for around, one in cycles if pivot in around])
        most = len(states) - 1 + (max((steps for steps, _ in rounds), default=1) - 1) * largest
        here: dict[tuple[Hashable, bool], Chains] = {(first, first == pivot): (NOTHING,)}
        for steps in range(most + 1 if rounds or pivot is None else 0):
            there = _chain([], [(rank, used + steps)])
            ends = longest([there, *(there + one.times(_rounds(rank, used + steps, n)) for n, one in rounds)])
            following: dict[tuple[Hashable, bool], list[Chain]] = {}
            for (state, passed), chains in here.items():
                if passed or pivot is None:
                    found.setdefault(state, []).extend(one + end for one in chains for end in ends)
                for (a, b), more in moves.items():
                    if a == state:
                        following.setdefault((b, passed or b == pivot), []).extend(x + y for x in chains for y in more)
            here = {key: longest(chains) for key, chains in following.items()}
    return {state: longest(chains) for state, chains in found.items()}


def _best(rounds: Iterable[tuple[int, Chain]]) -> list[tuple[int, Chain]]:
    """Ways round one state, with their steps, without those that another one makes up for by a whole number of
    rounds."""
    kept: list[tuple[int, Chain]] = []
    for steps, one in sorted(rounds, key=lambda r: r[0]):
        others = (other.times(_chain([((), steps // n)], ())) for n, other in kept if steps % n == 0)
        if not any(_within(one, other, 1) for other in others):
            kept.append((steps, one))
    return kept


def _rounds(rank: str, used: int, steps: int) -> Chain:
    if steps == 1:
        return _chain([((Extent(rank),), 1), ((), -used)], ())
    return _chain([((Rounds(rank, used, steps),), 1)], ())


def _cycles(moves: Mapping[tuple[Hashable, Hashable], Chains]) -> list[tuple[frozenset[Hashable], Chain]]:
    """Every way round that comes through no state twice, and its length."""
    import networkx as nx

    found: list[tuple[frozenset[Hashable], Chain]] = []
    for states in nx.simple_cycles(nx.DiGraph(moves.keys())):
        ways = [moves[a, b] for a, b in zip(states, (*states[1:], states[0]), strict=True)]
        found += [(frozenset(states), one) for one in longest(sum(way, NOTHING) for way in product(*ways))]
    return found
