"""One simulation for the command line, with its progress, and the files it is to write."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from fusemodel.api import mapped
from fusemodel.api import is_cascade
from fusemodel.cascade.workload import load_workload
from fusemodel.library import write_text
from fusemodel.mapping import load_design
from fusemodel.simulate import Simulation, simulate


@dataclass(frozen=True)
class Files:
    """Where to write a trace and a picture of the first ``tasks``; None: nowhere."""

    trace: str | None = None
    plot: str | None = None
    tasks: int = 2000


def simulated(
    mapping: str, workload: str | None, seq: int | None, sets: Mapping[str, int], arch: str | None, schedule: str,
    files: Files, *, copies: int = 1, skip: bool = True, progress: bool = False,
) -> Simulation:  # fmt: skip
    """Simulate a mapping (or a cascade, mapped onto ``arch``) and write what is asked for."""
    from rich.console import Console
    from rich.progress import Progress

    machine = None if workload is None else load_workload(workload)
    if is_cascade(mapping):
        design = mapped(mapping, arch, machine, seq, sets)
    else:
        design = load_design(mapping, arch=arch)
    with Progress(console=Console(stderr=True), transient=True, disable=not progress) as shown:
        task = shown.add_task("simulating", total=None)

        def tell(name: str, done: int, every: int) -> None:
            shown.update(task, description=name[:40], completed=done, total=every)

        result = simulate(
            design, machine, seq, sets, schedule=schedule, copies=copies, skip=skip, progress=tell if progress else None
        )
    if files.trace or files.plot:
        from fusemodel.simulate.run import machines, record

        runs = [(m, record(m, files.tasks)) for m in machines(design, machine, seq, sets, schedule=schedule, copies=copies)]
        if files.trace:
            from fusemodel.simulate.trace import trace_events

            write_text(files.trace, json.dumps(trace_events(runs, design.arch.clock_hz)))
        if files.plot:
            from fusemodel.report.figures import save
            from fusemodel.report.waterfall import waterfall

            if len(runs) > 1:
                sys.stderr.write(f"the picture shows the longest of {len(runs)} groups\n")
            longest = max(range(len(runs)), key=lambda i: result.groups[i].cycles)
            save(waterfall(*runs[longest], title=f"{result.mapping}: the first {files.tasks} tasks"), files.plot)
    return result
