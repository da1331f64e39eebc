"""What the library holds, and single items of it, for people and as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.text import Text
from rich.tree import Tree

from fusemodel.arch import Architecture, load_architecture
from fusemodel.cascade import Cascade, extents_of, format_cascade, format_einsums, load_cascade
from fusemodel.cascade.printer import format_expr
from fusemodel.cascade.work import work_of
from fusemodel.cascade.workload import Workload, load_workload
from fusemodel.doctor import Finding
from fusemodel.errors import InputError, unknown
from fusemodel.explore.space import Space, load_space
from fusemodel.library import KINDS, find, kind_of_document, names
from fusemodel.mapping import Design, load_design
from fusemodel.mapping import Group as MappingGroup
from fusemodel.mapping.spec import ALL, Auto
from fusemodel.quantities import count, joules, size, tokens
from fusemodel.report.compare import load_request
from fusemodel.report.plain import PlainTable
from fusemodel.yamlfile import read_yaml


def summary(kind: str, name: str, path: Path) -> dict[str, Any]:
    """One line of a listing. Cascades are checked, so that what is listed can be used."""
    doc = read_yaml(path)
    row: dict[str, Any] = {
        "name": name,
        "family": path.parent.name,
        "about": " ".join(str(doc.data.get("about") or "").split()),
    }
    row["source"] = " ".join(str(doc.data.get("source") or "").split())
    if kind == "cascades":
        cascade = load_cascade(str(path))
        row["einsums"] = len({e.name for e in cascade.einsums})
        row["provenance"] = cascade.provenance
    if kind == "mappings":
        row["cascade"], row["arch"] = str(doc.data.get("cascade")), str(doc.data.get("arch"))
    return row


def library_table(kind: str, rows: list[dict[str, Any]]) -> RenderableType:
    table = PlainTable(title=kind)
    table.add_column("name", no_wrap=True, style="bold")
    for column in {"mappings": ("cascade", "arch"), "cascades": ("family", "einsums")}.get(kind, ()):
        table.add_column(column, no_wrap=column in ("arch", "einsums"), overflow="fold", max_width=24)
    table.add_column("about")
    for row in rows:
        extra = [
            str(row[c]) for c in {"mappings": ("cascade", "arch"), "cascades": ("family", "einsums")}.get(kind, ())
        ]
        table.add_row(row["name"], *extra, row["about"])
    return Group(table, Text(""))


def kind_of(name: str) -> tuple[str, str]:
    """What a name or file is: by the library's folders, or by the fields of the file."""
    found = [k for k in KINDS if name in names(k)]
    if found:
        return found[0], str(names(found[0])[name])
    try:
        path = find("cascades", name)
    except InputError:
        raise unknown("name", name, [n for k in KINDS for n in names(k)]) from None
    return kind_of_document(read_yaml(path)), str(path)


def describe(kind: str, path: str) -> tuple[dict[str, Any], RenderableType]:
    """An item as plain data and as text."""
    match kind:
        case "cascades":
            return _cascade(load_cascade(path))
        case "archs":
            return _architecture(load_architecture(path))
        case "mappings":
            return _design(load_design(path))
        case "comparisons":
            return _comparison(path)
        case "spaces":
            return _space(load_space(path))
    return _workload(load_workload(path))


def _head(name: str, about: str, source: str) -> Text:
    text = Text(name, style="bold")
    if about:
        text.append(f"\n{about}", style="not bold")
    if source:
        text.append(f"\nSource: {source}", style="dim not bold")
    return text


def _cascade(c: Cascade) -> tuple[dict[str, Any], RenderableType]:
    extents = extents_of(c)
    data = {
        "name": c.name, "about": c.about, "source": c.source, "provenance": c.provenance, "ranks": extents,
        "batch": list(c.batch), "split": {k: list(v) for k, v in c.split.items()},
        "inputs": {k: list(v) for k, v in c.inputs.items()}, "outputs": list(c.outputs), "reference": c.reference,
        "tensors": {t: list(c.full_ranks(t)) for t in c.tensors},
        "einsums": format_einsums(c).splitlines(), "text": format_cascade(c),
    }  # fmt: skip
    ranks = PlainTable("rank", "extent")
    for rank, n in extents.items():
        note = " (batch)" if rank in c.batch else f" (part of {c.parents[rank]})" if rank in c.parents else ""
        ranks.add_row(rank + note, str(n))
    work = PlainTable("Einsum", "operations of a point")
    for e in c.explicit:
        work.add_row(e.name, " ".join(work_of(e).per_point))
    equations = Syntax(format_einsums(c), "text", background_color="default", word_wrap=False)
    return data, Group(_head(c.name, c.about, c.source), Text(""), equations, Text(""), ranks, Text(""), work)


def _architecture(a: Architecture) -> tuple[dict[str, Any], RenderableType]:
    areas = a.area_um2()
    data = {
        "name": a.name, "about": a.about, "source": a.source, "clock_hz": a.clock_hz, "word_bytes": a.word_bytes,
        "levels": {n: asdict(v) for n, v in a.levels.items()},
        "units": {
            n: {
                "shape": dict(u.shape), "reduce": sorted(u.reduce),
                "registers": asdict(u.registers) if u.registers else None,
                "ops": {o: asdict(op) for o, op in u.ops.items()},
            }
            for n, u in a.units.items()
        },
        "area_um2": areas,
    }  # fmt: skip
    levels = PlainTable("level", "size", "bandwidth", "access", "read", "write")
    for n, v in a.levels.items():
        levels.add_row(
            n, size(v.size_bytes) if v.size_bytes else "-",
            f"{size(v.bandwidth_bytes_per_s)}/s" if v.bandwidth_bytes_per_s else "-", size(v.access_bytes),
            joules(v.read_pj * 1e-12), joules(v.write_pj * 1e-12),
        )  # fmt: skip
    units = PlainTable("unit", "shape", "operations (cycles, energy)", "sums along")
    for n, u in a.units.items():
        ops = ", ".join(f"{o} ({op.cycles:g}, {op.energy_pj:.4g} pJ)" for o, op in u.ops.items())
        units.add_row(n, " x ".join(map(str, u.shape.values())), ops, " ".join(sorted(u.reduce)))
    clock = Text(
        f"clock {a.clock_hz / 1e6:g} MHz, word {a.word_bytes * 8:g} bit, area {sum(areas.values()) * 1e-6:.4g} mm^2"
    )
    return data, Group(_head(a.name, a.about, a.source), clock, Text(""), levels, Text(""), units)


def _design(d: Design) -> tuple[dict[str, Any], RenderableType]:
    data = {
        "name": d.name, "about": d.about, "source": d.source, "cascade": d.cascade.name, "arch": d.arch.name,
        "groups": [{"minimise": list(c.minimise), "variants": [_group_data(g) for g in c.groups]} for c in d.groups],
    }  # fmt: skip
    trees: list[RenderableType] = []
    for candidates in d.groups:
        for group in candidates.groups:
            trees.append(_loop_tree(group, d))
    head = Text(f"{d.cascade.name} on {d.arch.name}")
    return data, Group(_head(d.name, " ".join(d.about.split()), " ".join(d.source.split())), head, Text(""), *trees)


def _group_data(g: MappingGroup) -> dict[str, Any]:
    return {
        "name": g.name, "variant": g.variant, "tiles": {r: list(p) for r, p in g.parts.items()},
        "sizes": {n: _size_text(s) for n, s in g.sizes.items()}, "loops": list(g.loops),
        "keep": [{"level": k.level, "tensor": k.tensor, "under": k.under, "spill": k.spill} for k in g.keeps],
        "bind": {
            n: {"unit": b.unit, "spatial": {d: list(r) for d, r in b.spatial.items()}, "loops": list(b.loops)}
            for n, b in g.bindings.items()
        },
        "schedule": [list(s) for s in g.stages], "interleave": g.interleave,
    }  # fmt: skip


def _size_text(value: Any) -> str:
    if isinstance(value, Auto):
        return value.kind
    return str(list(value)) if isinstance(value, tuple) else format_expr(value).lower()


def _loop_tree(group: MappingGroup, design: Design) -> RenderableType:
    """Shared loops with what is kept under each, and the Einsums inside."""
    sizes = ", ".join(f"{n} = {_size_text(s)}" for n, s in group.sizes.items())
    variant = f"  variant: {group.variant}" if group.variant else ""
    tree = Tree(Text.assemble((group.name, "bold"), (variant, "dim"), (f"  {sizes}" if sizes else "", "dim")))
    here = tree
    held: dict[str, list[str]] = {}
    for keep in group.keeps:
        loop = keep.under if keep.under == ALL else group.leaves(keep.under, design.cascade)[-1]
        held.setdefault(loop, []).append(f"{keep.tensor}@{keep.level}")

    def kept(loops: Iterable[str]) -> tuple[str, str]:
        found = [t for x in loops for t in held.get(x, [])]
        return (f"   keep {', '.join(found)}" if found else "", "green")

    if ALL in held:
        here.add(Text.assemble(kept([ALL])))
    for loop in group.loops:
        here = here.add(Text.assemble(("for ", "cyan"), loop, kept([loop])))
    for i, stage in enumerate(group.stages):
        branch = here.add(Text(f"stage {i + 1}", style="magenta")) if len(group.stages) > 1 else here
        for name in stage:
            b = group.bindings[name]
            spatial = ", ".join(f"{d}: {' '.join(r)}" for d, r in b.spatial.items())
            inner = f" for {' '.join(b.loops)}" if b.loops else ""
            own = kept(x for x in b.loops if x not in group.loops)
            branch.add(Text.assemble((name, "bold"), f" on {b.unit} ({spatial}){inner}", own))
    return Group(tree, Text(""))


def _workload(w: Workload) -> tuple[dict[str, Any], RenderableType]:
    data = {"name": w.name, "about": w.about, "source": w.source, "ranks": dict(w.ranks), "sequence": list(w.sequence)}
    table = PlainTable("rank", "extent")
    for rank, n in w.ranks.items():
        table.add_row(rank, count(n))
    return data, Group(_head(w.name, w.about, w.source), Text(f"--seq sets {', '.join(w.sequence) or '-'}"), table)


def _comparison(path: str) -> tuple[dict[str, Any], RenderableType]:
    name, request = str(read_yaml(path).data.get("name") or Path(path).stem), load_request(path)
    about, source = request.about, request.source
    data = {
        "name": name, "about": about, "source": source, "workloads": list(request.workloads),
        "seq": list(request.seqs), "published": request.published,
        "sections": [{"title": s.title, "subject": s.subject, "baselines": dict(s.labels)} for s in request.sections],
        "rankings": [{"title": r.title, "designs": dict(r.designs)} for r in request.rankings],
    }  # fmt: skip
    table = PlainTable("part", "design", "in words")
    for section in request.sections:
        for design in section.mappings:
            table.add_row(section.title, design, section.labels.get(design, "judged against the others"))
    for ranking in request.rankings:
        for design, words in ranking.designs.items():
            table.add_row(ranking.title, design, words)
    lengths = ", ".join(tokens(s) for s in request.seqs) or "-"
    points = Text(f"workloads {', '.join(request.workloads) or '-'}; lengths {lengths}")
    return data, Group(_head(name, about, source), points, Text(""), table)


def _space(s: Space) -> tuple[dict[str, Any], RenderableType]:
    values = {n: list(dict.fromkeys(m.values[n] for m in s.machines)) for n in s.variables}
    areas = [m.area_mm2 for m in s.machines]
    data = {
        "name": s.name, "about": s.about, "source": s.source, "points": len(s.machines), "left_out": s.left_out,
        "values": values, "cascades": list(s.cascades), "workloads": list(s.workloads), "seq": list(s.seqs),
        "objectives": list(s.objectives), "area_mm2": [min(areas), max(areas)],
    }  # fmt: skip
    table = PlainTable("variable", "values")
    for name, found in values.items():
        table.add_row(name, ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in found))
    text = f"{len(areas)} architectures of {min(areas):.4g} to {max(areas):.4g} mm^2"
    text += f" ({s.left_out} more left out)" if s.left_out else ""
    return data, Group(_head(s.name, s.about, s.source), Text(text), table)


def findings_table(findings: Iterable[Finding]) -> RenderableType:
    """What an installation has."""
    table = PlainTable("", "", "found")
    for f in findings:
        mark, style = {True: ("ok", "green"), False: ("!!", "bold red"), None: ("-", "dim")}[f.ok]
        advice = f" ({f.advice})" if f.ok is False and f.advice else ""
        table.add_row(mark, f.what, f.found + advice, style=style)
    return table


def run_table(rows: list[dict[str, Any]]) -> RenderableType:
    """Errors of executed cascades against their references."""
    table = PlainTable("cascade", "points", "max abs error", "max rel error")
    for row in rows:
        errors = [("no reference" if row[k] is None else f"{row[k]:.3g}") for k in ("max_abs_error", "max_rel_error")]
        table.add_row(row["cascade"], count(row["points"]), *errors)
    return table
