"""The command line: parse, call, print. Heavy imports stay inside the commands, so that `--help` is quick."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict, replace
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusemodel.errors import InputError, unknown

if TYPE_CHECKING:
    from fusemodel.analysis.bounds import Bounds
    from fusemodel.report import Comparison, Request

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Attention algorithms as cascades of Einsums, mapped onto accelerators and evaluated in closed form.",
)


Json = Annotated[bool, typer.Option("--json", help="Print only JSON.")]
WorkloadOption = Annotated[str | None, typer.Option("--workload", "-w", help="Extents: a library name or a file.")]
SeqOption = Annotated[str | None, typer.Option("--seq", "-s", help="Sequence length, such as 1000 or 16K.")]
ArchOption = Annotated[
    str | None, typer.Option("--arch", help="Run mappings on another architecture, and map cascades onto it.")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="RANK=SIZE, for a rank or a tile; repeatable.")]


def _print_json(data: Any) -> None:
    sys.stdout.write(json.dumps(_plain(data), indent=2, allow_nan=False) + "\n")


def _plain(data: Any) -> Any:
    """JSON has no infinity or NaN: those become null."""
    if isinstance(data, dict):
        return {str(k): _plain(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(v) for v in data]
    if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))):
        return None
    return data


def _sets(values: list[str] | None) -> dict[str, int]:
    from fusemodel.cascade.load import parse_size
    from fusemodel.errors import Where

    result = {}
    for value in (v for given in values or [] for v in given.split(",")):
        name, equals, size = value.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--set {value!r} is not RANK=SIZE", expected="such as `--set p0=128`")
        result[name.strip()] = parse_size(size.strip(), f"--set {name.strip()}", Where())
    return result


def _seq(text: str) -> int:
    from fusemodel.cascade.load import parse_size
    from fusemodel.errors import Where

    return parse_size(text.strip(), "--seq", Where())


def _listed(text: str | None) -> tuple[str, ...]:
    """The parts of a list separated by commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(","))) if text is not None else ()


@app.command("list", epilog="Example: fusemodel list mappings")
def list_library(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="One of cascades, archs, mappings, workloads, comparisons, spaces."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every entry (the default).")] = False,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Write the cascades as a Markdown table, with passes, operations and source."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what the library holds."""
    del every
    from fusemodel.library import KINDS, names
    from fusemodel.report.library import library_table, summary

    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if out is not None:
        if kind != "cascades":
            raise InputError("--out writes the table of cascades", expected="`fusemodel list cascades --out FILE`")
        _write_catalogue(out)
        return
    kinds = [kind] if kind else list(KINDS)
    rows = {k: [summary(k, n, p) for n, p in names(k).items()] for k in kinds}
    if as_json:
        _print_json(rows if kind is None else rows[kind])
        return
    from fusemodel.report.tables import show

    for k in kinds:
        show(library_table(k, rows[k]))


def _write_catalogue(path: str) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from fusemodel.library import names, write_text
    from fusemodel.report.catalogue import catalogue

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("counting", total=len(names("cascades")))
        text = catalogue(progress=lambda name: progress.update(task, advance=1, description=name))
    write_text(path, text)


@app.command("show", epilog="Example: fusemodel show attention-1pass")
def show_item(name: Annotated[str, typer.Argument(metavar="NAME-OR-FILE")], as_json: Json = False) -> None:
    """Show a cascade, an architecture, a mapping, a workload, a comparison or a space, after checking it."""
    from fusemodel.report.library import describe, kind_of

    kind, path = kind_of(name)
    data, text = describe(kind, path)
    if as_json:
        _print_json(data)
    else:
        from fusemodel.report.tables import show

        show(text)


@app.command("run", epilog="Example: fusemodel run attention-1pass --set m=100")
def run_cascade(
    cascade: Annotated[str | None, typer.Argument(metavar="CASCADE", help="A library name or a file.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every cascade of the library.")] = False,
    sets: SetOption = None,
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random inputs.")] = 0,
    as_json: Json = False,
) -> None:
    """Execute a cascade on random arrays and compare it with its reference."""
    from fusemodel.cascade import load_cascade
    from fusemodel.library import names
    from fusemodel.numerics import compare

    if dtype not in ("float64", "float32"):
        raise unknown("dtype", dtype, ["float64", "float32"])
    if every == (cascade is not None):
        raise InputError("give one cascade, or --all", expected="`fusemodel run CASCADE`")
    chosen = list(names("cascades")) if every else [str(cascade)]
    sizes = _sets(sets)
    rows = []
    for name in chosen:
        found = compare(load_cascade(name), sizes or None, dtype=dtype, seed=seed)
        rows.append(asdict(found))
    if as_json:
        _print_json({"rows": rows} if every else rows[0])
    else:
        from fusemodel.report.library import run_table
        from fusemodel.report.tables import show

        show(run_table(rows))
    bad = [r["cascade"] for r in rows if not _agrees(r, dtype)]
    if bad:
        sys.stderr.write(f"differs from its reference: {', '.join(bad)}\n")
        raise typer.Exit(1)


def _agrees(row: dict[str, Any], dtype: str) -> bool:
    """Whether the error is what rounding explains."""
    limit = 1e-9 if dtype == "float64" else 1e-3
    return row["max_rel_error"] is None or row["max_rel_error"] <= limit


@app.command("passes", epilog="Example: fusemodel passes attention-3pass")
def count_passes(
    cascades: Annotated[
        list[str] | None, typer.Argument(metavar="CASCADE...", help="Library names or files; one in full.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every cascade of the library.")] = False,
    workload: WorkloadOption = None,
    seq: SeqOption = None,
    sets: SetOption = None,
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot", help="Draw the bound on traffic against storage on chip, and library mappings above it."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count the passes over each rank, as written and as derived, with the chain of Einsums that forces each; and bound
    what any mapping must do."""
    from fusemodel.analysis import edges, passes
    from fusemodel.analysis.bounds import bounds
    from fusemodel.analysis.derive import derive
    from fusemodel.cascade import extents_of, load_cascade
    from fusemodel.cascade.workload import extents_for, load_workload
    from fusemodel.library import names

    if every == bool(cascades):
        raise InputError("give cascades, or --all", expected="a name or file, or `--all`")
    chosen = list(names("cascades")) if every else list(dict.fromkeys(cascades or []))
    loaded = [load_cascade(n) for n in chosen]
    machine = None if workload is None else load_workload(workload)
    length, over = None if seq is None else _seq(seq), _sets(sets)
    extents = {c.name: extents_of(c, extents_for(c, machine, length) | over) for c in loaded}
    if plot:
        _plot_bounds(plot, {c.name: bounds(c, extents[c.name]) for c in loaded}, chosen, workload, length, over)
    found = {c.name: passes(c, extents[c.name]) for c in loaded}
    least = {}
    for c in loaded:
        best = derive(c).cascade
        sizes = extents_of(best, extents_for(best, machine, length) | over)
        after = passes(best, sizes).passes
        least[c.name] = {r: min(n, after.get(r, n)) for r, n in found[c.name].passes.items()}
    if as_json:
        from fusemodel.report.passes import bounds_data

        rows = [
            {**asdict(found[c.name]), "cascade": c.name, "derived": least[c.name], "edges": edges(c),
             "bounds": bounds_data(bounds(c, extents[c.name]))}
            for c in loaded
        ]  # fmt: skip
        _print_json(rows[0] if len(rows) == 1 and not every else {"rows": rows})
        return
    from fusemodel.report.passes import passes_overview, passes_table
    from fusemodel.report.tables import show

    if len(loaded) > 1:
        show(passes_overview(found, least))
    else:
        name = loaded[0].name
        show(passes_table(name, found[name], least[name], bounds(loaded[0], extents[name])))


def _plot_bounds(
    path: str, least: dict[str, Bounds], chosen: list[str], workload: str | None, seq: int | None, sets: dict[str, int]
) -> None:
    """Bounds of some cascades, and every library mapping of one of them that fits."""
    from fusemodel.api import evaluate
    from fusemodel.library import find, names
    from fusemodel.mapping import load_design
    from fusemodel.report.figures import dot, save, traffic_figure

    files = {str(find("cascades", n)) for n in chosen}
    dots = []
    for name in names("mappings"):
        design = load_design(name)
        if design.cascade.file in files:
            try:
                dots.append(dot(evaluate(name, workload, seq, sets), design.arch))
            except InputError as error:
                sys.stderr.write(f"{name} is left out: {error}\n")
    title = ", ".join(filter(None, [workload or "", f"{seq:,} tokens" if seq else ""]))
    save(traffic_figure(least, dots, title=title), path)


@app.command("derive", epilog="Example: fusemodel derive attention-3pass --out one-pass.yaml")
def derive_cascade(
    cascade: Annotated[str, typer.Argument(metavar="CASCADE", help="A library name or a file.")],
    stable: Annotated[bool, typer.Option("--stable", help="Also subtract a maximum in sums of exponentials.")] = False,
    rank: Annotated[str | None, typer.Option("--rank", help="Only fewer passes over this rank.")] = None,
    merge: Annotated[
        str, typer.Option("--merge", help="running: tiles one after another; chunks: independent, merged at the end.")
    ] = "running",
    out: Annotated[str | None, typer.Option("--out", "-o", help="Write the cascade found to this file.")] = None,
    arch: Annotated[
        str | None, typer.Option("--arch", help="Also map every stage onto this architecture, and compare them.")
    ] = None,
    workload: WorkloadOption = None,
    seq: SeqOption = None,
    sets: SetOption = None,
    as_json: Json = False,
) -> None:
    """Find an algebraically equal cascade with fewer passes, checked on numbers; print it with the steps taken. With
    --arch, map and evaluate the original and what was derived."""
    from fusemodel.analysis.derive import derive
    from fusemodel.api import evaluate
    from fusemodel.cascade import at_extents, format_cascade, load_cascade
    from fusemodel.library import write_text

    if merge not in ("running", "chunks"):
        raise unknown("way to merge", merge, ["running", "chunks"])
    if arch is None and (workload is not None or seq is not None):
        raise InputError("extents are for an evaluation", expected="`--arch NAME` beside --workload and --seq")
    over = _sets(sets)
    original = at_extents(load_cascade(cascade), over)
    found = derive(original, stable=stable, rank=rank, merge="chunks" if merge == "chunks" else "running")
    text = format_cascade(found.cascade)
    if out:
        write_text(out, text)
    length = None if seq is None else _seq(seq)
    stages = [evaluate(s, workload, length, over, arch=arch) for s in (original, *found.stages)] if arch else []
    if as_json:
        data = {f: getattr(found, f) for f in ("passes_before", "passes_after", "points_before", "points_after")}
        data |= {"steps": found.steps, "obstacles": found.obstacles, "cascade": found.cascade.name, "text": text}
        evaluated = [e.to_dict() for e in stages]
        _print_json({**data, "stages": [format_cascade(s) for s in found.stages], "evaluations": evaluated})
        return
    from fusemodel.report.passes import derivation
    from fusemodel.report.tables import evaluations, show

    show(derivation(found, text))
    if stages:
        labels = ["as written", *(f"after step {i}" for i in range(1, len(found.stages))), "derived"]
        show(evaluations(stages, labels[: len(stages)]))


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

    result = evaluate(mapping, workload, None if seq is None else _seq(seq), _sets(sets), arch)
    if as_json:
        _print_json(result.to_dict())
        return
    from fusemodel.report.tables import evaluation, show

    show(evaluation(result))


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
        str | None, typer.Option("--html", help="Also write a report as one page of HTML, with interactive plots.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare mappings over workloads and lengths, or cascades mapped onto --arch; without arguments, the comparison
    the library comes with."""
    request = replace(_request(mappings or [], workload, seq), arch=arch)
    result = _compared(request, quiet=as_json)
    if html:
        from fusemodel.library import write_text
        from fusemodel.report.html import html_page

        write_text(html, html_page(result, shlex.join(["fusemodel", *sys.argv[1:]])))
    if as_json:
        _print_json(
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
    kind: Annotated[str, typer.Option("--format", help="svg, pdf, png; several separated by commas.")] = "svg",
    workload: Annotated[str | None, typer.Option("--workload", "-w", help="Workloads, separated by commas.")] = None,
    seq: Annotated[str | None, typer.Option("--seq", "-s", help="Lengths, separated by commas.")] = None,
    arch: ArchOption = None,
    as_json: Json = False,
) -> None:
    """Draw a comparison for a paper: utilisation, active share by Einsum, speed-up and energy, with published figures
    where there are any; without arguments, the comparison the library comes with."""
    from fusemodel.library import make_folder
    from fusemodel.report.figures import FORMATS, save
    from fusemodel.report.paper import figures

    kinds = _listed(kind)
    for k in kinds:
        if k not in FORMATS:
            raise unknown("format of a picture", k, FORMATS)
    request = replace(_request(mappings or [], workload, seq), arch=arch)
    make_folder(out)
    written = []
    for name, figure in figures(_compared(request, quiet=as_json)):
        for k in kinds:
            written.append(os.path.join(out, f"{name}.{k}"))
            save(figure, written[-1])
    if as_json:
        _print_json({"files": written})
    else:
        sys.stdout.write("\n".join(written) + "\n")


def _request(mappings: list[str], workload: str | None, seq: str | None) -> Request:
    from fusemodel.report import Request, Section, load_request
    from fusemodel.report.library import kind_of

    workloads, seqs = _listed(workload), tuple(dict.fromkeys(_seq(s) for s in _listed(seq)))
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


@app.command(
    "explore", epilog="Example: fusemodel explore attention-1pass fusemax-cloud -w bert -s 256K --out best.yaml"
)
def explore_mappings(
    cascade: Annotated[str | None, typer.Argument(metavar="CASCADE", help="A library name or a file.")] = None,
    arch: Annotated[str | None, typer.Argument(metavar="ARCH", help="A library name or a file.")] = None,
    arch_space: Annotated[
        str | None, typer.Option("--arch-space", help="Map every architecture of this space: a library name or a file.")
    ] = None,
    workload: Annotated[str | None, typer.Option("--workload", "-w", help="A workload; several for a space.")] = None,
    seq: Annotated[str | None, typer.Option("--seq", "-s", help="A length; several for a space.")] = None,
    sets: SetOption = None,
    objective: Annotated[
        str | None, typer.Option(help="latency, energy, edp, dram or buffer; several, by commas: their Pareto front.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="A limit to each search; its gap is told.")] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Write the best mapping; of a space, all results (.csv, .json).")
    ] = None,
    plot: Annotated[str | None, typer.Option(help="Draw area against latency and energy (.svg, .pdf, .png).")] = None,
    store: Annotated[
        str | None, typer.Option(help="Where a space's results are kept; else in the user's cache.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes; all processors if not given.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Use the workers of a Dask cluster.")] = None,
    as_json: Json = False,
) -> None:
    """Find the best mapping of a cascade onto an architecture, or map every architecture of a space. A sweep goes on
    where it was left, and Ctrl-C prints the best so far."""
    from fusemodel.library import write_text
    from fusemodel.report import explore as report
    from fusemodel.report.exploring import run_search, run_sweep
    from fusemodel.report.figures import save
    from fusemodel.report.tables import show

    lengths = tuple(dict.fromkeys(_seq(s) for s in _listed(seq)))
    visible = sys.stderr.isatty() and not as_json
    if arch_space is None:
        for name, given in {"--plot": plot, "--store": store, "--jobs": jobs, "--scheduler": scheduler}.items():
            if given is not None:
                raise InputError(f"{name} is for a space", expected="`--arch-space FILE` beside it")
        result = run_search(
            cascade, arch, _listed(workload), lengths, _sets(sets), _listed(objective), seconds, visible
        )
        if out:
            write_text(out, result.found.text(*result.names))
        if as_json:
            _print_json(report.search_data(result.found, result.full, result.extents, result.names))
        else:
            show(report.search_report(result.found, result.full, result.objectives))
        return
    if cascade or sets:
        raise InputError("a space says itself what is mapped onto what", expected="no CASCADE, ARCH or --set beside it")
    found = run_sweep(
        arch_space, _listed(workload), lengths, _listed(objective), seconds, store, jobs, scheduler, visible
    )
    if found.error and not found.done:
        raise found.error
    if out:
        write_text(out, report.written(found, out))
    if plot:
        save(report.area_figure(found), plot)
    if as_json:
        _print_json(report.sweep_data(found))
    else:
        show(report.sweep_report(found))
    if found.error:
        raise found.error
    if found.ended:
        raise KeyboardInterrupt


@app.command("measure", epilog="Example: fusemodel measure --minutes 8 --out measured.csv")
def measure_kernels(
    out: Annotated[str, typer.Option("--out", "-o", help="Table to append to; what is there is not measured again.")]
    = "measured.csv",
    minutes: Annotated[float, typer.Option(help="Time for the whole run.")] = 8.0,
    groups: Annotated[str | None, typer.Option(help="Groups of points, separated by commas; all by default.")] = None,
    dtype: Annotated[str, typer.Option(help="bf16 or fp16.")] = "bf16",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order.")] = 0,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what failed in an earlier run.")] = False,
    plan: Annotated[bool, typer.Option("--plan", "--dry-run", help="Only list the points and their time.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Time kernels on this machine's GPU, each checked against float64 first, into a table with full provenance."""
    from pathlib import Path

    from rich.console import Console
    from rich.progress import Progress

    from fusemodel.validate.measure import Settings, measure
    from fusemodel.validate.measure.text import plan_data, plan_text, planned, report_data, report_text

    settings = Settings(Path(out), minutes, _listed(groups), dtype, seed, retry)
    if plan:
        found = planned(settings)
        _print_json(plan_data(found)) if as_json else sys.stdout.write(plan_text(found) + "\n")
        return
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        tasks: dict[str, Any] = {}

        def show(group: str, done: int, total: int, text: str) -> None:
            if group not in tasks:
                tasks[group] = bar.add_task(group, total=total)
            bar.update(tasks[group], completed=done, description=f"{group} {text}")

        report = measure(settings, progress=show)
    _print_json(report_data(report)) if as_json else sys.stdout.write(report_text(report) + "\n")


@app.command("init", epilog="Example: fusemodel init mine && fusemodel eval mine/mapping.yaml")
def start(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where to write; it is made if needed.")] = ".",
    as_json: Json = False,
) -> None:
    """Write a starter cascade, architecture and mapping, commented, that run as they are."""
    from fusemodel.library import copy_starter

    files = copy_starter(folder)
    if as_json:
        _print_json({"files": files})
        return
    sys.stdout.write("".join(f"wrote {f}\n" for f in files))
    here = next(f for f in files if f.endswith("mapping.yaml"))
    sys.stdout.write(f"next: fusemodel eval {here}\n")


@app.command("doctor", epilog="Example: fusemodel doctor")
def check_installation(as_json: Json = False) -> None:
    """Check this installation: versions, the library, places to write to, a GPU, optional parts. Exit code 1 if
    something that is needed does not work."""
    from fusemodel.doctor import diagnose

    findings = list(diagnose())
    if as_json:
        _print_json({"findings": [asdict(f) for f in findings]})
    else:
        from fusemodel.report.library import findings_table
        from fusemodel.report.tables import show

        show(findings_table(findings))
    if any(f.ok is False for f in findings):
        raise typer.Exit(1)


def _version(value: bool) -> None:
    if value:
        from fusemodel import __version__

        typer.echo(f"fusemodel {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


#: What typer raises for arguments it cannot use; it has no public name.
_UsageError: Any = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line. Input that cannot be used ends with one message and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="fusemodel", standalone_mode=False)
        if code == 130:  # typer's code for an interruption
            sys.stderr.write("interrupted\n")
        sys.exit(code)
    except _UsageError as error:
        if message := " ".join(error.format_message().split()):  # there is none after the help of `fusemodel` alone
            sys.stderr.write(f"error: {message}\n")
        sys.exit(2)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (MemoryError, RecursionError) as error:
        sys.stderr.write(f"error: too large: {type(error).__name__}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()


__all__ = ["app", "main"]
