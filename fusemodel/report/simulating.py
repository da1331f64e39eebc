"""One simulation for the command line, with its progress, and the files it is to write."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusemodel.api import is_cascade, mapped
from fusemodel.cascade.workload import load_workload
from fusemodel.errors import InputError
from fusemodel.library import names, write_text
from fusemodel.mapping import load_design
from fusemodel.simulate import Simulation, simulate


@dataclass(frozen=True)
class Files:
    """Where to write a trace and a picture of a window; None: nowhere."""

    trace: str | None = None
    plot: str | None = None


def simulated(
    mapping: str, workload: str | None, seq: int | None, sets: Mapping[str, int], arch: str | None, files: Files,
    *, progress: bool = False, **options: Any,
) -> Simulation:  # fmt: skip
    """Simulate a mapping (or a cascade, mapped onto ``arch``) with the ``options`` of
    :func:`fusemodel.simulate.simulate`, and write what is asked for."""
    from rich.console import Console
    from rich.progress import Progress

    machine = None if workload is None else load_workload(workload)
    design = mapped(mapping, arch, machine, seq, sets) if is_cascade(mapping) else load_design(mapping, arch=arch)
    with Progress(console=Console(stderr=True), transient=True, disable=not progress) as shown:
        task = shown.add_task("simulating", total=None)

        def tell(name: str, done: int, every: int) -> None:
            shown.update(task, description=name[:40], completed=done, total=every)

        result = simulate(design, machine, seq, sets, progress=tell if progress else None, **options)
    if files.trace:
        from fusemodel.simulate.trace import trace_events

        write_text(files.trace, json.dumps(trace_events(result.windows, design.arch.clock_hz)))
    if files.plot:
        from fusemodel.report.figures import save
        from fusemodel.report.waterfall import waterfall

        window = result.longest_window
        if len(result.windows) > 1:
            sys.stderr.write(f"the picture shows {window.group}, the longest of {len(result.windows)} groups\n")
        save(waterfall(window, title=result.mapping), files.plot)
    return result


#: Lengths of the table, unless others are asked for.
LENGTHS = tuple(2**n for n in (10, 14, 18, 20))


@dataclass(frozen=True)
class Difference:
    """A library mapping at one workload and length: by which part the simulation takes longer than the closed form, as
    written and with every kept tile double-buffered, and the stall that explains it (of the busiest unit)."""

    mapping: str
    workload: str
    seq: int
    cycles: float
    closed_form_cycles: float
    difference: float
    double_buffered: float
    stall_unit: str
    stall: str
    stall_share: float
    utilization: dict[str, float]


def against_closed_form(
    workloads: Sequence[str] | None, lengths: Sequence[int] | None, out: str | None, *, progress: bool = False
) -> list[Difference]:
    """Every library mapping at every workload it can take; what cannot be mapped is left out."""
    from rich.console import Console
    from rich.progress import Progress

    from fusemodel.report.simulation import main_stall, markdown, ratio

    points = [(m, w, s) for m in names("mappings") for w in workloads or names("workloads") for s in lengths or LENGTHS]
    rows: list[Difference] = []
    with Progress(console=Console(stderr=True), transient=True, disable=not progress) as shown:
        task = shown.add_task("simulating", total=len(points))
        for name, workload, seq in points:
            shown.update(task, advance=1, description=f"{name} {workload} {seq}")
            try:
                found, twice = (
                    simulate(load_design(name), load_workload(workload), seq, copies=copies, window=0)
                    for copies in (1, 2)
                )
            except InputError as error:
                if "deadlock" in str(error):
                    raise
                continue  # this workload has no such rank, or its tiles do not fit
            unit, stall, share = main_stall(found)
            rows.append(
                Difference(name, workload, seq, found.cycles, found.closed_form_cycles, ratio(found), ratio(twice),
                           unit, stall, share, found.utilization)
            )  # fmt: skip
            if out:  # a run that is interrupted leaves what it has
                write_text(out, markdown(rows))
    return rows
