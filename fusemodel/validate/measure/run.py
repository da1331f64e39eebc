"""Carrying a plan out: ask a worker for one point after the other, write each row, keep to the time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusemodel import __version__
from fusemodel.errors import InputError
from fusemodel.validate.measure import rows as made
from fusemodel.validate.measure.case import Case
from fusemodel.validate.measure.link import WORKER, Link, Lost
from fusemodel.validate.measure.plan import ENERGY_S, IDLE_S, SETTLE_S, Entry, Machine, Plan, make_plan, repeats
from fusemodel.validate.measure.stats import Drift
from fusemodel.validate.measure.store import COLUMNS, FAILURE_COLUMNS, Table, key_of, point_of
from fusemodel.validate.measure.telemetry import Reading, Watch, watch
from fusemodel.validate.measure.timing import TIMED_MS

#: A point may take this many times what was foretold, and this many seconds more: then its worker is taken to hang.
SLOWER, MARGIN_S = 5.0, 60.0
#: Seconds past the end of the run that its last point may go on.
LAST_S = 20.0
#: Workers that may be lost before a run gives up.
MAX_LOST = 12

#: Group, points done and to do in it, and what comes next.
Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure and where it goes. ``retry``: try again what failed in an earlier run. ``brief``: time each point
    by few launches after a pause."""

    out: Path
    minutes: float = 8.0
    groups: tuple[str, ...] = ()
    dtype: str = "bf16"
    seed: int = 0
    retry: bool = False
    brief: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """How long each point is timed, loaded or left at rest."""

    timed_ms: float = TIMED_MS
    load_s: float = ENERGY_S
    settle_s: float = SETTLE_S
    rest_s: float = IDLE_S


@dataclass(slots=True)
class Count:
    """Points of a group, one for each state of the cache."""

    planned: int = 0
    measured: int = 0
    there: int = 0
    failed: int = 0
    left: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did. ``there``: measured or failed before; ``left``: not reached in the time."""

    out: str
    failures: str
    gpu: str
    groups: dict[str, Count]
    drift: Drift | None
    idle_w: float | None
    repaired: bool
    lost_workers: int
    seconds: float

    @property
    def total(self) -> Count:
        every = list(self.groups.values())
        names = ("planned", "measured", "there", "failed", "left")
        return Count(*(sum(getattr(c, name) for c in every) for name in names), seconds=self.seconds)


def failures_path(out: Path) -> Path:
    """Where the failures beside a table of measurements are written."""
    return out.with_name(f"{out.stem}-failures.csv")


def log_path(out: Path) -> Path:
    """Where what the workers print is kept."""
    return out.with_name(f"{out.stem}.log")


def find_machine(command: Sequence[str] = WORKER) -> Machine | None:
    """The GPU of this machine as a plan needs it; None where there is none."""
    try:
        said, link = _start(command, None)
    except InputError:
        return None
    link.close()
    return _machine(said)


def measure(
    settings: Settings, *, progress: Progress | None = None, pace: Pace | None = None, command: Sequence[str] = WORKER
) -> Report:
    """Time the plan's points on this machine's GPU and append them to ``settings.out``, row by row; what is there is
    not measured again. A kernel that fails is noted in a file beside it, and the run goes on.

    InputError where there is no GPU, or the settings or the file cannot be used. On Ctrl-C (or SIGTERM) the rows so far
    are kept and KeyboardInterrupt goes on to the caller."""
    begin_s = time.monotonic()
    make_plan(groups=settings.groups, minutes=settings.minutes, dtype=settings.dtype)
    if not settings.out.parent.is_dir():
        raise InputError(f"{settings.out} cannot be written: there is no folder {settings.out.parent}")
    with _terminated_as_interrupted():
        said, link = _start(command, log_path(settings.out))
        observed = None
        try:
            plan = make_plan(_machine(said), groups=settings.groups, minutes=settings.minutes, dtype=settings.dtype,
                             seed=settings.seed, started_s=time.monotonic() - begin_s)  # fmt: skip
            observed = watch(said["uuid"])
            out = Table(settings.out, COLUMNS)
            failures = Table(failures_path(settings.out), FAILURE_COLUMNS)
            run = _Run(settings, pace or Pace(), command, link, said, observed, out, failures, begin_s)
            try:
                return run.carry_out(plan, progress or (lambda *_: None))
            finally:
                link = run.link
                out.close()
                failures.close()
        finally:
            if link is not None:
                link.close()
            if observed is not None:
                observed.telemetry.close()


def _start(command: Sequence[str], log: Path | None) -> tuple[dict[str, Any], Link]:
    """A worker that has found its device, and what it said of it. What it prints goes to ``log``."""
    new = log is not None and not log.exists()
    try:
        link = Link(command, log)
    except OSError as error:
        raise InputError(f"a worker cannot be started: {error}") from error
    try:
        said = link.hello()
        if why := said.get("no_device"):
            raise InputError(f"there is no GPU to measure: {why}", expected="an NVIDIA GPU, and PyTorch built for it")
    except BaseException as error:
        link.close()
        last = _last_line(log)
        if new and log is not None:
            log.unlink(missing_ok=True)
        if isinstance(error, Lost):
            raise InputError(f"no GPU can be measured: {error}{last}", expected="PyTorch that finds the GPU") from error
        raise
    return said, link


def _last_line(log: Path | None) -> str:
    """The last thing a worker printed, for a message."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log is not None and log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f" ({last[:200]})" if last else ""


def _machine(said: Mapping[str, Any]) -> Machine:
    return Machine(said["sms"], said["memory_bytes"], False, tuple(said.get("missing", {}).items()))


@dataclass(slots=True)
class _Run:
    """A run under way."""

    settings: Settings
    pace: Pace
    command: Sequence[str]
    link: Link | None
    said: dict[str, Any]
    observed: Watch | None
    out: Table
    failures: Table
    begin_s: float
    order: int = 0
    lost: int = 0
    tried: set[tuple[str, ...]] = field(default_factory=set)

    def carry_out(self, plan: Plan, progress: Progress) -> Report:
        done = {key_of(r) for r in self.out.rows}
        if not self.settings.retry:
            self.tried = {key_of({**r, "l2": ""})[:-2] for r in self.failures.rows}
        counts: dict[str, Count] = {}
        for group in plan.groups:
            counts[group.name] = self._group(group.name, group.entries, group.deadline_s, done, 0, progress)
        again = [e for e in repeats([e for g in plan.groups for e in g.entries], plan.seed) if self._is_there(e, done)]
        counts["again"] = self._group("again", again, plan.budget_s, done, 1, progress)
        rows = self.out.rows
        gpu = str(self.said["device"])
        return Report(
            str(self.settings.out), str(self.failures.path), gpu, counts, made.drift_of(rows, gpu),
            made.idle_of(rows, gpu), self.out.repaired, self.lost, time.monotonic() - self.begin_s,
        )  # fmt: skip

    def _group(
        self, name: str, entries: Sequence[Entry], deadline_s: float, done: set[Any], repeat: int, progress: Progress
    ) -> Count:
        """Measure the entries that are not there, until the group's deadline."""
        count, start = Count(planned=sum(len(e.modes) for e in entries)), time.monotonic()
        for i, entry in enumerate(entries):
            progress(name, i, len(entries), str(entry.case))
            modes = [m for m in entry.modes if self._key(entry.case, m, repeat) not in done]
            count.there += len(entry.modes) - len(modes)
            if not modes:
                continue
            if self._failure_key(entry.case) in self.tried:
                count.there += len(modes)
            elif time.monotonic() - self.begin_s + min(entry.estimate_s, 2.0) > deadline_s:
                count.left += len(modes)
            else:
                written = self._point(entry, modes, repeat)
                done |= {self._key(entry.case, m, repeat) for m in written}
                count.measured += len(written)
                count.failed += len(modes) - len(written)
        progress(name, len(entries), len(entries), "")
        count.seconds = time.monotonic() - start
        return count

    def _point(self, entry: Entry, modes: Sequence[str], repeat: int) -> list[str]:
        """Measure one case; the states of the cache of which there is now a row."""
        self.link = self.link or self._again()
        request = {"case": entry.case.to_dict(), "modes": modes, "timed_ms": self.pace.timed_ms,
                   "load_s": self.pace.load_s, "settle_s": self.pace.settle_s, "rest_s": self.pace.rest_s,
                   "brief": self.settings.brief}  # fmt: skip
        written: list[str] = []
        try:
            for reply in self.link.ask(request, self._timeout_s(entry)):
                if "failed" in reply:
                    self._fail(entry.case, reply, [m for m in modes if m not in written])
                    continue
                try:
                    self._write(entry.case, reply, repeat)
                except InputError:  # the table cannot be written
                    raise
                except ValueError as error:
                    said = {"failed": "statistics", "error": "no time", "message": str(error)}
                    self._fail(entry.case, said, [reply["l2"]])
                    continue
                written.append(reply["l2"])
        except Lost as error:
            left = [m for m in modes if m not in written]
            if left and self._failure_key(entry.case) not in self.tried:
                self._fail(entry.case, {"failed": "worker", "error": error.kind, "message": str(error)}, left)
            self.link.close()
            self.link = None
            self.lost += 1
            if self.lost > MAX_LOST:
                raise InputError(f"{self.lost} workers were lost, the last one so: {error}",
                                 expected=f"see {log_path(self.settings.out)}") from error  # fmt: skip
        return written

    def _timeout_s(self, entry: Entry) -> float:
        """When a worker is taken to hang: well after what was foretold, and not long after the end of the run."""
        rest_s = 60 * self.settings.minutes - (time.monotonic() - self.begin_s)
        return min(SLOWER * entry.estimate_s + MARGIN_S, max(rest_s, 0.0) + LAST_S)

    def _again(self) -> Link:
        """Another worker in place of one that was lost."""
        return _start(self.command, log_path(self.settings.out))[1]

    def _write(self, case: Case, reply: Mapping[str, Any], repeat: int) -> None:
        self.order += 1
        idle_w = made.idle_of(self.out.rows, str(self.said["device"])) if case.group == "energy" else None
        row = made.measured(case, reply, self._readings(case, reply), idle_w)
        self.out.add({**row, "repeat": repeat, "order": self.order, "seed": self.settings.seed, **self._provenance()})

    def _fail(self, case: Case, reply: Mapping[str, Any], modes: Sequence[str]) -> None:
        self.tried.add(self._failure_key(case))
        self.failures.add({**made.failed(case, reply, modes), **self._provenance()})

    def _readings(self, case: Case, reply: Mapping[str, Any]) -> list[Reading]:
        if self.observed is None:
            return []
        if case.group == "energy":
            time.sleep(0.3)  # the energy counter must have moved on both sides
        return self.observed.telemetry.since(reply["begin_s"])

    def _provenance(self) -> dict[str, Any]:
        said = self.said
        return {
            "source": f"fusemodel {__version__} measure",
            "gpu": said["device"],
            "l2_mb": said["l2_bytes"] / 1e6 or None,
            "memory_gb": said["memory_bytes"] / 1e9,
            **{c: said.get(c) for c in ("sms", "cuda", "cudnn", "torch", "triton", "python")},
            **(self.observed.facts if self.observed else {}),
        }

    def _key(self, case: Case, mode: str, repeat: int) -> tuple[str, ...]:
        return key_of({**point_of(case), "gpu": self.said["device"], "l2": mode, "repeat": repeat})

    def _failure_key(self, case: Case) -> tuple[str, ...]:
        return self._key(case, "", 0)[:-2]

    def _is_there(self, entry: Entry, done: set[Any]) -> bool:
        return all(self._key(entry.case, m, 0) in done for m in entry.modes)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Be ended by SIGTERM as by Ctrl-C: workers stopped, files closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
