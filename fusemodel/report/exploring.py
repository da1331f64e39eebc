"""Running a search or a sweep as the command line asks for it, and showing how far it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fusemodel.api import is_cascade
from fusemodel.arch import load_architecture
from fusemodel.cascade import extents_of, load_cascade
from fusemodel.cascade.workload import Workload, check_set, extents_for, load_workload
from fusemodel.errors import InputError, unknown
from fusemodel.explore import OBJECTIVES, Found
from fusemodel.explore.designs import FIELDS
from fusemodel.explore.found import Progress as Far
from fusemodel.explore.partial import complete
from fusemodel.explore.problem import search
from fusemodel.explore.space import load_space
from fusemodel.explore.store import default_path, open_store
from fusemodel.explore.sweep import Progress as Reached
from fusemodel.explore.sweep import Row, Sweep, Tell, sweep
from fusemodel.explore.workers import processors
from fusemodel.library import called, check_kind, find
from fusemodel.mapping.partial import is_partial
from fusemodel.model import Evaluation, evaluate
from fusemodel.report.explore import WRITTEN
from fusemodel.yamlfile import read_yaml

#: Before the first line about a search that nobody watches, and between two.
_FIRST_S, _EVERY_S = 10.0, 30.0


@dataclass(frozen=True)
class Searched:
    """A search with its best mapping evaluated; ``names`` are what a mapping file calls the cascade and the
    architecture."""

    found: Found
    full: Evaluation
    extents: Mapping[str, int]
    objectives: tuple[str, ...]
    names: tuple[str, str]


def run_search(
    cascade: str | None, arch: str | None, workloads: Sequence[str], seqs: Sequence[int], sets: Mapping[str, int],
    objectives: Sequence[str], seconds: float | None, show: bool,
) -> Searched:  # fmt: skip
    """The best mapping of one cascade onto one architecture."""
    if cascade is not None and not is_cascade(cascade):
        return _completed(cascade, arch, workloads, seqs, sets, objectives, seconds, show)
    if cascade is None or arch is None:
        raise InputError("what is to be mapped onto what?", expected="CASCADE ARCH, or `--arch-space FILE`")
    workload, seq = _one(workloads, seqs)
    wanted = _checked(objectives) or ("latency",)
    loaded, machine = load_cascade(cascade), load_architecture(arch)
    for name in sets:
        check_set(loaded, name, {})
    extents = extents_of(loaded, extents_for(loaded, workload, seq) | dict(sets))
    with search_progress(wanted[0], machine.clock_hz, machine.word_bytes, show=show) as tell:
        found = search(loaded, machine, extents, wanted, seconds, tell)
    full = evaluate(found.design, workload, seq, extents)
    return Searched(found, full, extents, wanted, (called("cascades", cascade), called("archs", arch)))


def _one(workloads: Sequence[str], seqs: Sequence[int]) -> tuple[Workload | None, int | None]:
    if len(workloads) > 1 or len(seqs) > 1:
        raise InputError("a search is for one workload and length", expected="one of each, or `--arch-space FILE`")
    return load_workload(workloads[0]) if workloads else None, seqs[0] if seqs else None


def _completed(
    mapping: str, arch: str | None, workloads: Sequence[str], seqs: Sequence[int], sets: Mapping[str, int],
    objectives: Sequence[str], seconds: float | None, show: bool,
) -> Searched:  # fmt: skip
    """What a mapping file leaves open, found; on ``arch`` instead of its own, where that is given."""
    doc = read_yaml(str(find("mappings", mapping)))
    check_kind(doc, "mappings")
    if not is_partial(doc.data):
        raise InputError(f"nothing is open in the mapping {mapping!r}", doc.where(),
                         expected="`auto` in it; or a cascade, and an architecture to map it onto")  # fmt: skip
    workload, seq = _one(workloads, seqs)
    names = {k: str(doc.data.get(f"{k}", "")) for k in ("cascade", "arch")}
    machine = load_architecture(arch) if arch else load_architecture(names["arch"], beside=doc.file)
    wanted = _checked(objectives)
    if set(wanted) - {"latency", "energy", "edp", "dram"}:
        raise InputError("a mapping is completed by latency, energy, edp or dram", expected="one of these")
    with search_progress((wanted or ("latency",))[0], machine.clock_hz, machine.word_bytes, show=show) as tell:
        found = complete(doc, workload, seq, sets, machine, objectives=wanted, seconds=seconds, progress=tell)
    full = evaluate(found.design, workload, seq, {r: n for r, n in sets.items() if r in found.design.cascade.ranks})
    said = called("cascades", names["cascade"], doc.file), called("archs", arch or names["arch"], doc.file)
    return Searched(found, full, full.extents, found.objectives[: len(wanted) or 1], said)


def run_sweep(
    space: str, workloads: Sequence[str], seqs: Sequence[int], objectives: Sequence[str], seconds: float | None,
    store: str | None, jobs: int | None, scheduler: str | None, show: bool,
) -> Sweep:  # fmt: skip
    """A space swept, with what is given instead of what its file says."""
    if jobs is not None and scheduler is not None:
        raise InputError("a cluster has its own processes", expected="--jobs or --scheduler")
    given = load_space(space)
    wanted = replace(
        given, workloads=tuple(workloads) or given.workloads, seqs=tuple(seqs) or given.seqs,
        objectives=_checked(objectives) or given.objectives,
    )  # fmt: skip
    with open_store(store or default_path()) as kept, sweep_progress(wanted.objectives[0], show=show) as tell:
        return sweep(wanted, kept, jobs=jobs or processors(), scheduler=scheduler, seconds=seconds, tell=tell)


def _checked(objectives: Sequence[str]) -> tuple[str, ...]:
    for name in objectives:
        if name not in OBJECTIVES:
            raise unknown("objective", name, OBJECTIVES)
    return tuple(objectives)


@contextmanager
def search_progress(objective: str, clock_hz: float, word_bytes: float, *, show: bool) -> Iterator[Far]:
    """A bar with the best so far, the bound and the time left, on standard error; where nobody watches it or where
    output is for a program, a line now and then, since a search may take long and say nothing until its end."""
    started = said = monotonic()
    scale = {"latency": 1 / clock_hz, "energy": 1e-12, "edp": 1e-12 / clock_hz}.get(objective, word_bytes)
    written = WRITTEN[FIELDS[objective]]
    with Progress(
        TextColumn("searching"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[best]}"),
        console=Console(stderr=True), transient=True, disable=not show,
    ) as bar:  # fmt: skip
        task = bar.add_task("searching", total=1.0, best="")

        def tell(part: float, least: float | None, bound: float) -> None:
            shown = "" if least is None else f"best {written(least * scale)}, bound {written(bound * scale)}"
            bar.update(task, completed=part, best=shown)
            nonlocal said
            now = monotonic()
            if not show and now - said > (_FIRST_S if said == started else _EVERY_S):
                said = now
                how = "; --seconds or Ctrl-C ends it with the best so far" if said - started < _EVERY_S else ""
                far = f"{part:.0%} of a part" + (f", {shown}" if shown else ", nothing that fits yet")
                sys.stderr.write(f"searching for {now - started:.0f} s: {far}{how}\n")
                sys.stderr.flush()

        yield tell


@contextmanager
def sweep_progress(objective: str, *, show: bool) -> Iterator[Tell]:
    """A bar with the rate, the best so far and the time left, on standard error."""
    number = FIELDS[objective]
    with Progress(
        TextColumn("mapping"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[best]}"),
        console=Console(stderr=True), transient=True, disable=not show,
    ) as bar:  # fmt: skip
        task = bar.add_task("mapping", total=None, rate="", best="")
        least: list[float] = []

        def tell(far: Reached, rows: Sequence[Row]) -> None:
            numbers = [r.result[number] for r in rows if r.result is not None and "error" not in r.result]
            least[:] = sorted([*least, *numbers])[:1]
            spent = bar.tasks[0].elapsed or 0.0
            rate = f"{far.new / spent:.1f}/s" if far.new and spent else ""
            shown = f"best {WRITTEN[number](least[0])}" if least else ""
            shown += "; another run is at the rest" if far.waiting else ""
            bar.update(task, total=far.total, completed=far.done, rate=rate, best=shown)

        yield tell


__all__ = ["Searched", "run_search", "run_sweep", "search_progress", "sweep_progress"]
