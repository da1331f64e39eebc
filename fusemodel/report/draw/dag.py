"""A cascade as a graph: tensors in layers, coloured by the pass over one rank in which each is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusemodel.analysis import Passes, passes
from fusemodel.cascade import Cascade, extents_of
from fusemodel.cascade.ir import is_start, reads
from fusemodel.cascade.printer import format_einsum
from fusemodel.report.draw.svg import Canvas, width_of

_PASS = ("#cfe8fb", "#ffe0b0", "#f8c8c4", "#dcccf3", "#cdebd3", "#f6d3e6")
_NONE = "#ffffff"
_LONGEST = 46  # characters of an equation
_HEIGHT, _GAP_X, _GAP_Y, _EDGE = 42, 20, 34, 16


@dataclass
class _Node:
    name: str
    layer: int
    equation: str
    width: float
    x: float = 0.0

    @property
    def y(self) -> float:
        return _EDGE + 26 + self.layer * (_HEIGHT + _GAP_Y)


def cascade_svg(cascade: Cascade, rank: str | None = None) -> str:
    """The graph of a cascade as SVG. Colours are passes over ``rank``, by default the one traversed most often; what is
    white does not hold it. Dashed arrows go from one step of a recurrence to the next."""
    found = passes(cascade, extents_of(cascade))
    shown = rank if rank is not None else _main(cascade, found)
    needs = _needs(cascade)
    nodes = _placed(cascade, needs)
    canvas = Canvas()
    for name, read in needs.items():
        for source in read:
            a, b = nodes[source], nodes[name]
            if a.layer < b.layer:
                canvas.curve(a.x, a.y + _HEIGHT, b.x, b.y)
            else:
                canvas.back(a.x + a.width / 2, a.y + _HEIGHT * 0.7, b.x + b.width / 2, b.y + _HEIGHT * 0.3)
    for node in nodes.values():
        made = found.tensors.get(node.name, {}).get(shown)
        fill = _PASS[(made - 1) % len(_PASS)] if made else _NONE
        wanted = node.name in cascade.outputs
        canvas.box(node.x - node.width / 2, node.y, node.width, _HEIGHT, fill, "#1a1d21" if wanted else "#8a939d",
                   radius=21 if node.name in cascade.inputs else 5, tip=node.equation)  # fmt: skip
        canvas.text(node.x, node.y + 17, node.name, 12, anchor="middle", bold=True)
        canvas.text(node.x, node.y + 32, _short(node.equation), 9.5, anchor="middle", mono=True, colour="#3c434a")
    width = max(n.x + n.width / 2 for n in nodes.values()) + 2 * _EDGE
    height = max(n.y for n in nodes.values()) + _HEIGHT + _EDGE
    width = max(width, _legend(canvas, cascade.name, shown, found.passes.get(shown, 0)))
    return canvas.drawing(width, height, f"{cascade.name}, coloured by passes over {shown}")


def _main(cascade: Cascade, found: Passes) -> str:
    inner = {p for parts in cascade.split.values() for p in parts}
    ranks = [r for r in found.passes if r not in inner and r not in cascade.batch] or list(found.passes)
    return max(ranks, key=lambda r: (found.passes[r], r in cascade.sequence, ranks.index(r)))


def _needs(cascade: Cascade) -> dict[str, list[str]]:
    """For each tensor computed, those it is made of."""
    needs: dict[str, list[str]] = {}
    for e in cascade.einsums:
        if not is_start(e, cascade.tensors[e.name]):
            needs[e.name] = list(dict.fromkeys([*needs.get(e.name, ()), *(a.tensor for a in reads(e))]))
    return needs


def _placed(cascade: Cascade, needs: Mapping[str, list[str]]) -> dict[str, _Node]:
    """Nodes in layers: each below all it reads, steps of recurrences aside; inputs just above what reads them first."""
    order = list(needs)
    layer: dict[str, int] = {}
    for name in order:
        before = [layer[t] for t in needs[name] if t in layer]
        layer[name] = 1 + max(before, default=0)
    for t in cascade.inputs:
        readers = [layer[n] for n in order if t in needs[n]]
        layer[t] = min(readers, default=1) - 1
    least = min(layer.values())
    equations = {e.name: format_einsum(e).split(" = ", 1)[1] for e in cascade.einsums}
    nodes = {}
    for name, at in layer.items():
        text = equations.get(name) or f"[{', '.join(cascade.tensors[name].ranks)}]"
        width = max(width_of(name, 12, bold=True), width_of(_short(text), 9.5, mono=True)) + 18
        nodes[name] = _Node(name, at - least, text, width)
    rows: dict[int, list[_Node]] = {}
    for node in nodes.values():
        rows.setdefault(node.layer, []).append(node)
    near = {n: [*needs.get(n, ()), *(m for m in order if n in needs[m])] for n in nodes}
    _spread(rows)
    for sweep in range(6):  # towards the middle of the neighbours (Sugiyama's barycentres)
        for _, row in sorted(rows.items(), reverse=bool(sweep % 2)):
            row.sort(key=lambda n: sum(nodes[m].x for m in near[n.name]) / max(1, len(near[n.name])))
        _spread(rows)
    return nodes


def _spread(rows: Mapping[int, list[_Node]]) -> None:
    """Rows side by side, centred."""
    widest = max(sum(n.width + _GAP_X for n in row) for row in rows.values())
    for row in rows.values():
        x = _EDGE + (widest - sum(n.width + _GAP_X for n in row)) / 2
        for node in row:
            node.x = x + node.width / 2
            x += node.width + _GAP_X


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _legend(canvas: Canvas, name: str, rank: str, count: int) -> float:
    """The name, and what the colours mean; how wide that is."""
    canvas.text(_EDGE, 22, name, 13, bold=True)
    x = _EDGE + width_of(name, 13, bold=True) + 24
    for k in range(count):
        canvas.box(x, 11, 14, 14, _PASS[k % len(_PASS)], radius=3)
        label = f"pass {k + 1} over {rank}"
        canvas.text(x + 19, 22, label, 11)
        x += 34 + width_of(label, 11)
    return x + _EDGE
