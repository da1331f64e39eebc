"""Many mappings of one kind at once: a design traced once, then computed for columns of tile sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import islice, product
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemodel.arch import Architecture
from fusemodel.cascade.workload import Workload
from fusemodel.errors import InputError, Where, listed, unknown
from fusemodel.mapping.spec import Design
from fusemodel.model.compiled import machine, sizes
from fusemodel.model.compiled.lookup import tables
from fusemodel.model.compiled.singly import one_by_one
from fusemodel.model.compiled.tape import Tape, run, tape_of
from fusemodel.model.compiled.trace import Traced, labels_of, signature_of, trace
from fusemodel.model.evaluate import extents_in, plans_of
from fusemodel.model.expression import Choice, Node, Untraceable
from fusemodel.model.frame import loose_ranks, settled
from fusemodel.model.identity import Identity
from fusemodel.model.numbers import numbers_of, on_machine
from fusemodel.model.plan import Plan

if TYPE_CHECKING:
    import sympy

#: The columns that a search needs; those that start with ``need_bytes.`` come with them.
OBJECTIVES = ("latency_s", "energy_j", "edp_js", "dram_bytes", "fits")
#: Rows for which counts that conditions decide are looked up at a time.
_ROWS = 2**18
_FLAGS = ("fits", "registers_hold", "valid")

Column = int | Sequence[int] | np.ndarray
#: Ranks that tiles do not divide, for each group; nothing where there are none.
Loose = Sequence[frozenset[str]]


@dataclass(frozen=True)
class Batch:
    """Results of ``len(batch)`` mappings: ``batch["traffic_bytes.dram.K.read"]`` is a column, named after the fields of
    :class:`fusemodel.model.Evaluation`.

    Besides those there are ``edp_js``, ``need_bytes.LEVEL`` (space wanted, before spilling), ``fits``,
    ``registers_hold`` (what stays in registers has room there) and ``valid``: the parts make up their ranks. Where they
    cannot, all else is nan. ``tiles`` are the sizes taken. ``one_by_one`` says why the mappings were not computed
    together.
    """

    columns: Mapping[str, np.ndarray]
    tiles: Mapping[str, np.ndarray]
    notes: tuple[str, ...] = ()
    one_by_one: str = ""

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.columns:
            raise unknown("column", name, self.columns)
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.columns["valid"])


@dataclass(frozen=True)
class CompiledMapping:
    """A design with one plan for each group, ready for columns of sizes. Traces are shared by machines (:meth:`on`)."""

    design: Design
    plans: tuple[Plan, ...]
    _traces: dict[object, Traced | str] = field(default_factory=dict, repr=False, compare=False)
    _tapes: dict[object, Tape] = field(default_factory=dict, repr=False, compare=False)

    def on(self, arch: Architecture) -> CompiledMapping:
        """The same mapping on another machine with the same levels and units, without tracing it again."""
        plans = tuple(on_machine(p, arch) for p in self.plans)
        return CompiledMapping(self.design, plans, self._traces, self._tapes)

    def evaluate(
        self,
        workload: Workload | None = None,
        seq: int | None = None,
        sets: Mapping[str, Column] | None = None,
        columns: Sequence[str] | None = None,
        threads: int | None = None,
    ) -> Batch:
        """Evaluate for every row of ``sets``: ranks or tiles by name, each a number or a column. ``columns`` are the
        results wanted: all, or for instance :data:`OBJECTIVES`. InputError for names and what no row can have."""
        rows, length = sizes.columns_of(sets or {})
        parts: list[tuple[np.ndarray, Batch]] = []
        for index, fixed in sizes.alike(rows, self.design.cascade.ranks, length):
            some = {n: c[index] for n, c in rows.items() if n not in fixed}
            extents = extents_in(self.design, workload, seq, {**dict.fromkeys(some, 1), **fixed})
            found = self._alike(extents, {**fixed, **some}, len(index), columns, threads)
            if len(index) == length:
                return found
            parts.append((index, found))
        return _joined(parts, length)

    def compute(
        self,
        extents: Mapping[str, int],
        tiles: Mapping[str, Column],
        columns: Sequence[str] = OBJECTIVES,
        threads: int | None = None,
        *,
        ragged: bool = False,
    ) -> dict[str, np.ndarray]:
        """Results for complete tile sizes: every part of every group by name (after the name of its group and a dot,
        where there are several); unless ``ragged``, they are known to divide their ranks. A column that is the same for
        all is one number, spread (read-only). Untraceable if counts need plain numbers."""
        length = max((len(c) for c in tiles.values() if np.ndim(c)), default=1)  # pyright: ignore[reportArgumentType]
        given = {n: np.broadcast_to(np.asarray(c, dtype=float), (length,)) for n, c in tiles.items()}
        traced = self.traced(extents, self._loose(extents, given) if ragged else ())
        wanted = [self._node(traced, name) for name in columns]
        found = self._run(traced, extents, given, length, [_node(w) for w in wanted], tuple(columns), threads)
        return dict(zip(columns, map(_decoded, columns, wanted, found), strict=True))

    def traced(self, extents: Mapping[str, int], loose: Loose = ()) -> Traced:
        """The trace that holds at some extents; ``loose``: ranks that some tiles do not divide, for each group."""
        loose = tuple(loose) if any(loose) else ()
        key = signature_of(self.plans, extents), self._none, loose
        if key not in self._traces:
            try:
                self._traces[key] = trace(self.design, self.plans, extents, loose)
            except Untraceable as error:
                self._traces[key] = str(error)
        found = self._traces[key]
        if isinstance(found, str):
            raise Untraceable(found)
        return found

    def formula(self, column: str, workload: Workload | None = None, seq: int | None = None) -> sympy.Expr:
        """A result as a SymPy expression of extents, tile sizes and numbers of the machine (:attr:`numbers`)."""
        from fusemodel.model.compiled.formula import formula_of

        traced = self.traced(extents_in(self.design, workload, seq, {}))
        return formula_of(_node(self._node(traced, column)))

    @cached_property
    def numbers(self) -> dict[str, float]:
        """The numbers of the machine, by the names they have in formulas."""
        return {n: v for p in self.plans for n, v in numbers_of(p).items()}

    @cached_property
    def _none(self) -> frozenset[str]:
        """What the machine has and has not: names of numbers that are 0, and of all."""
        return frozenset([*self.numbers, *(f"no {n}" for n, v in self.numbers.items() if not v)])

    def _loose(self, extents: Mapping[str, int], tiles: Mapping[str, np.ndarray]) -> Loose:
        """The ranks of each group that some tiles do not divide."""
        labels = labels_of([p.group for p in self.plans])
        found = [
            loose_ranks(settled(p), {**extents, **_own(tiles, label, p)}, extents)
            for p, label in zip(self.plans, labels, strict=True)
        ]
        return tuple(found)

    def _node(self, traced: Traced, name: str) -> Node | Choice:
        if name not in traced.columns:
            raise unknown("column", name, traced.columns)
        return traced.columns[name]

    def _alike(
        self, extents: Mapping[str, int], rows: Mapping[str, Any], length: int, columns: Sequence[str] | None,
        threads: int | None,
    ) -> Batch:  # fmt: skip
        """A batch at the same extents."""
        for plan in self.plans:
            sizes.check_chosen(plan.group, rows)
        try:
            return self._together(extents, rows, length, columns, threads)
        except Untraceable as error:
            return Batch(*one_by_one(self.design, self.plans, extents, rows, length, columns), str(error))

    def _together(
        self, extents: Mapping[str, int], rows: Mapping[str, Any], length: int, columns: Sequence[str] | None,
        threads: int | None,
    ) -> Batch:  # fmt: skip
        groups = [p.group for p in self.plans]

        def fits(i: int, tiles: Mapping[str, np.ndarray], many: int) -> np.ndarray:
            given = {labels[i] + n: c for n, c in tiles.items()}
            loose = loose_ranks(settled(self.plans[i]), {**extents, **tiles}, extents)
            traced = self.traced(extents, tuple(loose if j == i else frozenset() for j in range(len(groups))))
            return self._run(traced, extents, given, many, [traced.fits[i]], ("fits", i), threads)[0] > 0

        labels = labels_of(groups)
        tiles: dict[str, np.ndarray] = {}
        valid = np.ones(length, dtype=bool)
        for i, group in enumerate(groups):
            found, divides = sizes.completed(group, extents, rows, length, lambda t, n, i=i: fits(i, t, n))
            tiles |= {labels[i] + n: c for n, c in found.items()}
            valid &= divides
        traced = self.traced(extents, self._loose(extents, {n: c[valid] for n, c in tiles.items()}))
        names = list(columns if columns is not None else traced.columns)
        if columns is not None and set(OBJECTIVES) <= set(columns):
            names += [n for n in traced.columns if n.startswith("need_bytes.") and n not in names]
        names = [n for n in names if n != "valid"]
        given = tiles
        if not valid.all():  # what a valid row has, so that nothing is counted for the others
            given = {n: np.where(valid, c, c[np.argmax(valid)] if valid.any() else 1.0) for n, c in tiles.items()}
        wanted = [self._node(traced, name) for name in names]
        nodes = [_node(w) for w in wanted] + [r for *_, r in traced.reserved]
        notes = list(traced.notes)
        found = self._run(traced, extents, given, length, nodes, ("checked", *names), threads, notes)
        _check_reserved(traced, found[len(names) :])
        result = {n: _masked(_decoded(n, w, c), valid) for n, w, c in zip(names, wanted, found, strict=False)}
        return Batch({"valid": valid, **result}, tiles, tuple(notes))

    def _run(
        self, traced: Traced, extents: Mapping[str, int], tiles: Mapping[str, np.ndarray], length: int,
        nodes: Sequence[Node], label: object, threads: int | None, notes: list[str] | None = None,
    ) -> list[np.ndarray]:  # fmt: skip
        key = (id(traced), label, frozenset(tiles))
        if key not in self._tapes:
            self._tapes[key] = tape_of(nodes, frozenset(tiles))
        tape, fixed = self._tapes[key], {**extents, **self.numbers}
        if missing := [n for n in tape.fixed if n not in fixed and n not in traced.counts]:
            raise InputError(f"the size of tile {missing[0]!r} is missing")
        counts = [n for n in (*tape.columns, *tape.fixed) if n in traced.counts]
        if not counts:
            return run(tape, fixed, tiles, length, threads or machine.threads())
        labels = labels_of([p.group for p in self.plans])
        parts: list[list[np.ndarray]] = []
        for start in range(0, length, _ROWS):
            some = {n: c[start : start + _ROWS] for n, c in tiles.items()}
            many = min(_ROWS, length - start)
            said = notes if notes is not None else []
            found = tables(traced, counts, self.plans, labels, extents, some, many, said)
            single = {n: float(found.pop(n)[0]) for n in counts if n in tape.fixed}
            parts.append(run(tape, {**fixed, **single}, {**some, **found}, many, threads or machine.threads()))
        return parts[0] if len(parts) == 1 else [np.concatenate(same) for same in zip(*parts, strict=True)]


def compile_mapping(design: Design, variants: Mapping[str, str] | None = None) -> CompiledMapping:
    """A design for many sizes at once. Of a group that has variants, ``variants`` says which, by the group's name;
    tiles that are left to a search must be given (in ``sets``)."""
    return _compiled(Identity(design), tuple(sorted((variants or {}).items())))


@lru_cache(maxsize=64)
def _compiled(key: Identity, variants: tuple[tuple[str, str], ...]) -> CompiledMapping:
    design, found = key.of, []
    for plans, candidates in zip(plans_of(design), design.groups, strict=True):
        group = candidates.groups[0]
        wanted = dict(variants).get(group.name)
        names = [p.group.variant for p in plans]
        if wanted is None and len(plans) > 1:
            raise InputError(
                f"group {group.name!r} has variants", group.places.get("variants", Where(design.file)),
                expected=f"one of {listed(names)}",
            )  # fmt: skip
        if wanted is not None and wanted not in names:
            raise unknown("variant", wanted, names, group.places.get("variants", Where(design.file)))
        found.append(plans[names.index(wanted) if wanted is not None else 0])
    return CompiledMapping(design, tuple(found))


def blocks_of(options: Mapping[str, Sequence[int]], most: int = 2**18) -> Iterator[dict[str, np.ndarray]]:
    """Every combination of some sizes, in blocks of columns that memory holds at a time."""
    combinations = product(*options.values())
    while rows := list(islice(combinations, most)):
        table = np.array(rows, dtype=float).T
        yield {name: np.ascontiguousarray(table[i]) for i, name in enumerate(options)}


def _own(tiles: Mapping[str, np.ndarray], label: str, plan: Plan) -> dict[str, np.ndarray]:
    """The sizes of the parts of one group."""
    return {p: tiles[label + p] for ps in plan.group.parts.values() for p in ps}


def _node(wanted: Node | Choice) -> Node:
    return wanted.code if isinstance(wanted, Choice) else wanted


def _decoded(name: str, wanted: Node | Choice, found: np.ndarray) -> np.ndarray:
    if isinstance(wanted, Choice):
        return np.array(wanted.names)[found.astype(int)]
    return found > 0 if name in _FLAGS else found


def _masked(column: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """A column without what rows that are not valid say."""
    if valid.all():
        return column
    if column.dtype == bool:
        return column & valid
    return np.where(valid, column, "" if column.dtype.kind == "U" else np.nan)


def _check_reserved(traced: Traced, found: Sequence[np.ndarray]) -> None:
    for (plan, level, _), column in zip(traced.reserved, found, strict=True):
        if not (np.isfinite(column) & (column >= 0)).all():
            where = plan.group.places.get(f"reserve.{level}", Where())
            raise InputError(f"what is reserved in {level!r} is negative or not finite", where,
                             expected="a number of words")  # fmt: skip


def _joined(parts: Sequence[tuple[np.ndarray, Batch]], length: int) -> Batch:
    """Batches of some rows each as one."""

    def together(tables: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        result = {}
        for name in dict.fromkeys(n for table in tables for n in table):
            dtype = np.result_type(*(t[name].dtype for t in tables if name in t))
            column = np.zeros(length, dtype=dtype)
            for (index, _), table in zip(parts, tables, strict=True):
                if name in table:
                    column[index] = table[name]
            result[name] = column
        return result

    batches = [b for _, b in parts]
    return Batch(
        together([b.columns for b in batches]), together([b.tiles for b in batches]),
        tuple(dict.fromkeys(n for b in batches for n in b.notes)), next((b.one_by_one for b in batches), ""),
    )  # fmt: skip
