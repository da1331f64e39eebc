"""A sweep: every point of a space mapped optimally for every cascade, workload and length, with results kept as they
come."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, replace
from typing import Any

from fusemodel.cascade import Cascade, extents_of, load_cascade
from fusemodel.cascade.workload import extents_for, load_workload
from fusemodel.errors import InputError
from fusemodel.explore.fields import shown
from fusemodel.explore.problem import Problem, Result, Task, canonical, problem, solve, tasks_of, text_of, version
from fusemodel.explore.space import Machine, Space
from fusemodel.explore.store import LEASE_S, Store, StoreError
from fusemodel.explore.workers import ATTEMPTS, Workers, workers

_LOOK_S = 0.5  # between looks for the results of another run


@dataclass(frozen=True)
class Row:
    """An architecture with one cascade, workload and length. ``result`` is None where it has not been found yet;
    ``kept``: it was in the store."""

    machine: Machine
    cascade: str
    workload: str | None
    seq: int | None
    key: str
    result: Result | None
    kept: bool = False


@dataclass
class Sweep:
    """What a sweep found. ``ended``: why it stopped before all was done, if it did."""

    space: Space
    rows: list[Row]
    seconds: float
    ended: str | None = None
    error: InputError | None = None

    @property
    def done(self) -> list[Row]:
        return [r for r in self.rows if r.result is not None and "error" not in r.result]

    def _repr_svg_(self) -> str:
        from fusemodel.report.explore import area_figure
        from fusemodel.report.figures import svg_text

        return svg_text(area_figure(self), self.space.name)


@dataclass
class Progress:
    """How far a sweep is: ``done`` of ``total`` rows, ``kept`` of them from the store, ``new`` made by this run; what
    another run is at, this one waits for."""

    total: int
    kept: int = 0
    new: int = 0
    waiting: bool = False

    @property
    def done(self) -> int:
        return self.kept + self.new


Tell = Callable[[Progress, Sequence[Row]], None]
_Where = tuple[Machine, str, str | None, int | None]


def sweep(
    space: Space, store: Store, *, jobs: int = 1, scheduler: str | None = None, seconds: float | None = None,
    tell: Tell | None = None,
) -> Sweep:  # fmt: skip
    """Every point of a space mapped; results that the store has are taken from it, and new ones go to it at once.

    ``jobs`` local processes, or the workers of a Dask ``scheduler``; ``seconds`` limits each search. Interrupted, or
    when the store fails, it returns what was found so far, and says so; no finished result is lost.
    """
    began = time.perf_counter()
    places = list(_problems(space, seconds))
    every = {p.key: p for _, p in places}
    run = _Run(places, store, seconds, tell)
    try:
        run.take(store.get(every), kept=True)
        while left := [p for k, p in every.items() if k not in run.results]:
            with workers(min(jobs, len(left)), scheduler) as crew:
                run.through(tasks_of(left), crew)
    except KeyboardInterrupt:
        run.ended = "interrupted"
    except InputError as error:
        run.ended, run.error = str(error), error
    run.close()
    return Sweep(space, run.rows(), time.perf_counter() - began, run.ended, run.error)


def _problems(space: Space, seconds: float | None) -> Iterator[tuple[_Where, Problem]]:
    """Every point with every cascade, workload and length; InputError for extents that do not fit."""
    loaded = {name: load_cascade(name, beside=space.file) for name in space.cascades}
    texts = {name: text_of(c) for name, c in loaded.items()}
    loads = {name: load_workload(name) for name in space.workloads}
    for machine in space.machines:
        numbers = canonical(machine.arch)
        for name, cascade in loaded.items():
            for workload in space.workloads or (None,):
                for seq in space.seqs or (None,):
                    given = extents_for(cascade, loads[workload] if workload else None, seq)
                    extents = extents_of(cascade, given | _own(machine, cascade))
                    found = problem(texts[name], machine.arch, numbers, extents, space.objectives, seconds)
                    yield (machine, name, workload, seq), found


def _own(machine: Machine, cascade: Cascade) -> dict[str, int]:
    """The extents that a point gives; one that is no whole number is refused by the cascade's own check."""
    sizes: dict[str, Any] = {r: n for r, n in machine.extents.items() if r in cascade.ranks}
    for rank, n in sizes.items():
        if not isinstance(n, int):
            raise InputError(f"rank {rank!r} is {n:g} at {dict(machine.values)}", expected="a whole number")
    return sizes


class _Run:
    """The state of a sweep: what is found, what of that is not in the store yet, and what each worker is at."""

    def __init__(
        self, places: Sequence[tuple[_Where, Problem]], store: Store, seconds: float | None, tell: Tell | None
    ) -> None:
        self.places, self.store, self.seconds, self.tell = places, store, seconds, tell
        self.progress = Progress(len(places))
        self.results: dict[str, tuple[Result, bool]] = {}
        self.unkept: dict[str, Result] = {}
        self.deaths: Counter[str] = Counter()
        self.ended: str | None = None
        self.error: InputError | None = None
        self._where: dict[str, list[_Where]] = {}
        for where, p in places:
            self._where.setdefault(p.key, []).append(where)

    def rows(self) -> list[Row]:
        return [Row(*where, p.key, *self.results.get(p.key, (None, False))) for where, p in self.places]

    def take(self, found: Mapping[str, Result], *, kept: bool) -> set[str]:
        """Take results that are good for this sweep: a search that a limit ended is no answer to a longer one."""
        good = {k: r for k, r in found.items() if r["proven"] or not kept or _enough(r["limit_s"], self.seconds)}
        self.results |= {k: (r, kept) for k, r in good.items()}
        rows = [Row(*where, k, r, kept) for k, r in good.items() for where in self._where[k]]
        if kept:
            self.progress.kept += len(rows)
        else:
            self.progress.new += len(rows)
        if self.tell and rows:
            self.tell(self.progress, rows)
        return set(good)

    def through(self, tasks: Sequence[Task], crew: Workers) -> None:
        """Have tasks done; returns when all are, or when the workers are gone and others are needed."""
        queue, others = deque(tasks), list[Task]()
        pending: dict[Future[Any], Task] = {}
        looked = renewed = time.monotonic()
        broken = False
        while queue or pending or others:
            try:
                while queue and len(pending) < crew.wanted:
                    self.start(queue.popleft(), crew, pending, others)
            except BrokenExecutor:
                broken = True
            if pending:
                ended, _ = wait(pending, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                broken = not all([self.end(future, pending) for future in ended]) or broken  # noqa: C419 (end them all)
            elif others:
                self.waits()
            if broken:
                for task in pending.values():
                    self.died(task)
                return
            now = time.monotonic()
            if others and now - looked >= _LOOK_S:
                queue, others, looked = deque([*queue, *others]), [], now
            if pending and now - renewed > LEASE_S / 4:
                self.store.claim([p.key for t in pending.values() for p in t.problems])
                renewed = now

    def start(self, task: Task, crew: Workers, pending: dict[Future[Any], Task], others: list[Task]) -> None:
        """Give a task to a worker, unless another run has done it or is at it."""
        keys = [p.key for p in task.problems]
        if not self.store.claim(keys):
            others.append(task)
            return
        known = self.take(self.store.get(keys), kept=True)
        left = tuple(p for p in task.problems if p.key not in known)
        if left:
            task = replace(task, problems=left)
            pending[crew.executor.submit(solve, task)] = task

    def end(self, future: Future[Any], pending: dict[Future[Any], Task]) -> bool:
        """Take what a worker has found; False if its pool is broken."""
        try:
            found = dict(future.result())
        except BrokenExecutor:
            return False
        except InputError:
            raise
        except Exception as error:
            if type(error).__module__.startswith(("distributed", "concurrent", "asyncio")):
                raise InputError(f"the Dask cluster failed: {type(error).__name__}: {error}",
                                 expected="a scheduler and workers that run") from None  # fmt: skip
            raise
        del pending[future]
        self.unkept |= found
        self.take(found, kept=False)
        self.keep()
        return True

    def waits(self) -> None:
        self.progress.waiting = True
        if self.tell:
            self.tell(self.progress, [])
        time.sleep(_LOOK_S)
        self.progress.waiting = False

    def died(self, task: Task) -> None:
        key = task.problems[0].key
        self.deaths[key] += 1
        if self.deaths[key] >= ATTEMPTS:
            machine, cascade, *_ = self._where[key][0]
            raise InputError(
                f"workers died {ATTEMPTS} times while they mapped {cascade} at {shown(machine.values)}",
                expected="more memory, or fewer --jobs",
            )

    def keep(self) -> None:
        if self.unkept:
            self.store.put(self.unkept, version())
            self.unkept = {}

    def close(self) -> None:
        """Keep what could not be kept before, and let other runs have what this one claimed."""
        try:
            self.keep()
            self.store.release()
        except StoreError as error:
            self.ended, self.error = self.ended or str(error), self.error or error


def _enough(limit: float | None, wanted: float | None) -> bool:
    return limit is None or (wanted is not None and wanted <= limit)


__all__ = ["Progress", "Row", "Sweep", "Tell", "sweep"]
