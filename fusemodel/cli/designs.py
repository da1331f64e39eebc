"""eval, simulate, compare, figures: designs and what they cost."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from fusemodel.cli.options import (
    ArchOption,
    Json,
    SeqOption,
    SetOption,
    WorkloadOption,
    app,
    listed,
    print_json,
    sequence_length,
    sizes_set,
    to_write,
)
from fusemodel.errors import InputError, Where, unknown

if TYPE_CHECKING:
    from fusemodel.report import Comparison, Request


@app.command("eval", epilog="Example: fusemodel eval fusemax --workload bert --seq 16K")
def evaluate_mapping(
    mapping: Annotated[
        str, typer.Argument(metavar="MAPPING", help="A library name or a file; or a cascade, to be mapped onto --arch.")
    ],
    workload: WorkloadOption = None,
    seq: SeqOption = None,
    sets: SetOption = None,
    arch: ArchOption = None,
    as_json: Json = False,
) -> None:
    """Evaluate a mapping: latency, energy, traffic, utilisation and what bounds it."""
    from fusemodel.api import evaluate

    result = evaluate(mapping, workload, None if seq is None else sequence_length(seq), sizes_set(sets), arch)
    if as_json:
        print_json(result.to_dict())
        return
    from fusemodel.report.tables import evaluation, show

    show(evaluation(result))


_Several = " (--all: several)."
_Workloads = Annotated[
    str | None, typer.Option("--workload", "-w", help="Extents: a library name or a file" + _Several)
]
_Lengths = Annotated[str | None, typer.Option("--seq", "-s", help="Sequence length, such as 1000 or 16K" + _Several)]
_Schedule = Annotated[
    str, typer.Option(help="given: the stages of the mapping; asap: whatever is ready, oldest tile first.")
]
_Copies = Annotated[
    int, typer.Option(min=1, max=64, help="Room for at least so many of every kept tile; 2: double buffering.")
]
_Trace = Annotated[
    str | None,
    typer.Option("--trace", callback=to_write, help="Write the window as a trace for Perfetto or chrome://tracing."),
]
_Plot = Annotated[
    str | None,
    typer.Option("--plot", callback=to_write, help="Draw the window, a lane for each unit (.svg, .png or .pdf)."),
]
_Tasks = Annotated[
    int, typer.Option("--tasks", min=1, max=10**6, help="Tasks of each group in the window: trace, picture, path.")
]
_From = Annotated[
    str, typer.Option("--from", help="Tasks of each group before the window, such as 0 (from the start) or 10M.")
]
_Instances = Annotated[
    int | None, typer.Option(min=1, max=2**20, help="Arrays that share heads and batches; the architecture's.")
]
_Full = Annotated[bool, typer.Option("--full", help="Run every task, also where periods repeat.")]
_Every = Annotated[
    bool, typer.Option("--all", help="Every mapping of the library against the closed form, as a table.")
]
_Out = Annotated[
    str | None, typer.Option("--out", "-o", callback=to_write, help="With --all: write the table as Markdown.")
]


@app.command("simulate", epilog="Example: fusemodel simulate fusemax --workload bert --seq 64K")
def simulate_mapping(
    mapping: Annotated[str | None, typer.Argument(metavar="MAPPING", help="A library name or a file.")] = None,
    workload: _Workloads = None,
    seq: _Lengths = None,
    sets: SetOption = None,
    arch: ArchOption = None,
    schedule: _Schedule = "given",
    copies: _Copies = 1,
    trace: _Trace = None,
    plot: _Plot = None,
    instances: _Instances = None,
    tasks: _Tasks = 2000,
    first: _From = "0",
    full: _Full = False,
    every: _Every = False,
    out: _Out = None,
    as_json: Json = False,
) -> None:
    """Simulate a mapping tile by tile: cycles against the closed form, and what each unit waits for."""
    from fusemodel.report.simulating import Files, simulated
    from fusemodel.report.tables import show

    if every == (mapping is not None):
        raise InputError("give one mapping, or --all", expected="`fusemodel simulate MAPPING`")
    shown = sys.stderr.isatty() and not as_json
    alone = {"--set": sets, "--arch": arch, "--trace": trace, "--plot": plot, "--instances": instances, "--full": full,
             "--schedule": schedule != "given", "--copies": copies != 1, "--from": first != "0"}  # fmt: skip
    if given := next((x for x, value in ({"--out": out} if not every else alone).items() if value), None):
        raise InputError(f"{given} is {'not for' if every else 'for'} --all",
                         expected="--workload, --seq, --out and --json beside --all")  # fmt: skip
    if every:
        _simulate_all(listed(workload), listed(seq), out, as_json=as_json, shown=shown)
        return
    length = None if seq is None else sequence_length(seq)
    result = simulated(
        str(mapping), workload, length, sizes_set(sets), arch, Files(trace, plot), progress=shown, schedule=schedule,
        copies=copies, instances=instances, skip=not full, window=tasks, window_from=_number(first),
    )  # fmt: skip
    if as_json:
        print_json(result.to_dict())
        return
    from fusemodel.report.simulation import simulation

    show(simulation(result))


def _simulate_all(
    workloads: Sequence[str], seqs: Sequence[str], out: str | None, *, as_json: bool, shown: bool
) -> None:
    from fusemodel.report.simulating import against_closed_form
    from fusemodel.report.simulation import differences
    from fusemodel.report.tables import show

    lengths = [sequence_length(s) for s in seqs] or None
    rows = against_closed_form(list(workloads) or None, lengths, out, progress=shown)
    if as_json:
        print_json({"rows": [asdict(r) for r in rows]})
    elif not out:
        show(differences(rows))


def _number(text: str) -> int:
    """Tasks left out, such as ``10M``."""
    from fusemodel.cascade.load import parse_size

    return 0 if text.strip() == "0" else parse_size(text, "--from", Where())


@app.command("compare", epilog="Example: fusemodel compare flat fusemax --workload bert,xlm --seq 1K,64K")
def compare_mappings(
    mappings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MAPPING...",
            help="Mappings, or cascades with --arch; the last is judged against the others. Or one comparison of the "
            "library, or its file. None: the default.",
        ),
    ] = None,
    workload: Annotated[str | None, typer.Option("--workload", "-w", help="Workloads, separated by commas.")] = None,
    seq: Annotated[str | None, typer.Option("--seq", "-s", help="Lengths, separated by commas.")] = None,
    arch: ArchOption = None,
    details: Annotated[bool, typer.Option("--details", help="Also print every evaluation.")] = False,
    html: Annotated[
        str | None,
        typer.Option(
            "--html", callback=to_write, help="Also write a report as one page of HTML, with interactive plots."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare mappings over workloads and lengths, or cascades mapped onto --arch.

    Without arguments, the comparison the library comes with."""
    request = replace(_request(mappings or [], workload, seq), arch=arch)
    result = _compared(request, quiet=as_json)
    if html:
        from fusemodel.library import write_text
        from fusemodel.report.html import html_page

        write_text(html, html_page(result, shlex.join(["fusemodel", *sys.argv[1:]])))
    if as_json:
        print_json(
            {
                "rows": [r.to_dict() for r in result.rows],
                "mean": {a: {b: asdict(r) for b, r in against.items()} for a, against in result.mean.items()},
                "published": list(result.published),
                "rankings": [p for r in result.request.rankings for p in result.ranked(r)],
            }
        )
        return
    from fusemodel.report.tables import comparison, show

    show(comparison(result, details=details))
    if html:
        sys.stderr.write(f"wrote {html}\n")


@app.command("figures", epilog="Example: fusemodel figures --out figures --format svg,pdf")
def draw_figures(
    mappings: Annotated[
        list[str] | None, typer.Argument(metavar="MAPPING...", help="As for compare; the last is judged.")
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="The folder to write to; it is made if needed.")] = "figures",
    space: Annotated[
        str | None,
        typer.Option(
            "--arch-space", help="Also draw area against latency, on the architectures of a space (a name or a file)."
        ),
    ] = None,
    kind: Annotated[str, typer.Option("--format", help="svg, pdf, png; several separated by commas.")] = "svg",
    workload: Annotated[str | None, typer.Option("--workload", "-w", help="Workloads, separated by commas.")] = None,
    seq: Annotated[str | None, typer.Option("--seq", "-s", help="Lengths, separated by commas.")] = None,
    arch: ArchOption = None,
    as_json: Json = False,
) -> None:
    """Draw a comparison for a paper: utilisation, active share by Einsum, speed-up and energy, area against latency.

    With published figures where there are any; without arguments, the comparison the library comes with."""
    from fusemodel.explore.space import load_space
    from fusemodel.library import make_folder
    from fusemodel.report.figures import FORMATS, save
    from fusemodel.report.paper import figures

    kinds = listed(kind)
    for k in kinds:
        if k not in FORMATS:
            raise unknown("format of a picture", k, FORMATS)
    request = replace(_request(mappings or [], workload, seq), arch=arch)
    if space is not None:
        load_space(space)
        request = replace(request, space=space)
    make_folder(out)
    written = []
    for name, figure in figures(_compared(request, quiet=as_json)):
        for k in kinds:
            written.append(os.path.join(out, f"{name}.{k}"))
            save(figure, written[-1])
    if as_json:
        print_json({"files": written})
    else:
        sys.stdout.write("\n".join(written) + "\n")


def _request(mappings: list[str], workload: str | None, seq: str | None) -> Request:
    from fusemodel.report import Request, Section, load_request
    from fusemodel.report.library import kind_of

    workloads, seqs = listed(workload), tuple(dict.fromkeys(sequence_length(s) for s in listed(seq)))
    if not mappings or (len(mappings) == 1 and kind_of(mappings[0])[0] == "comparisons"):
        base = load_request(*mappings)
        published = "" if workloads or seqs else base.published
        return replace(base, workloads=workloads or base.workloads, seqs=seqs or base.seqs, published=published)
    if len(mappings) < 2:
        raise InputError(
            "one mapping cannot be compared", expected="two or more, a comparison, or none for the default comparison"
        )
    if len(set(mappings)) != len(mappings):
        raise InputError("a mapping is given twice", expected="mappings that differ")
    return Request((Section("Comparison", mappings[-1], tuple(mappings[:-1])),), workloads, seqs)


def _compared(request: Request, *, quiet: bool) -> Comparison:
    """A comparison, with its progress where somebody looks."""
    from rich.console import Console
    from rich.progress import Progress

    from fusemodel.report import compare

    if quiet or not sys.stderr.isatty():
        return compare(request)

    total = len(request.designs) * max(1, len(request.workloads)) * max(1, len(request.seqs))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("evaluating", total=total)
        return compare(request, lambda name: progress.update(task, advance=1, description=name))
