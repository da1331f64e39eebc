"""A mapping as nested loops: what is kept under each, and the Einsums inside, coloured by unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fusemodel.cascade.printer import format_expr
from fusemodel.mapping import Design, Group
from fusemodel.mapping.spec import ALL, Auto, TileSize
from fusemodel.report.draw.svg import SERIES, Canvas, width_of

_LINE, _PAD, _EDGE = 24, 8, 14
_SIZE = 11.5


@dataclass
class _Block:
    """A box with a heading, a remark at its right, and boxes inside."""

    head: str
    remark: str = ""
    fill: str = "#ffffff"
    bold: bool = False
    inside: list[_Block] = field(default_factory=list)

    @property
    def height(self) -> float:
        return _LINE + (sum(b.height + 4 for b in self.inside) + 4 if self.inside else 0)

    @property
    def width(self) -> float:
        own = width_of(self.head, _SIZE, bold=self.bold) + width_of(self.remark, _SIZE) + 4 * _PAD
        return max([own, *(b.width + 2 * _PAD for b in self.inside)])

    def draw(self, canvas: Canvas, x: float, y: float, width: float) -> None:
        canvas.box(x, y, width, self.height, self.fill)
        canvas.text(x + _PAD, y + 16, self.head, _SIZE, bold=self.bold)
        if self.remark:
            canvas.text(x + width - _PAD, y + 16, self.remark, _SIZE, anchor="end", colour="#1a6b3f")
        at = y + _LINE
        for block in self.inside:
            block.draw(canvas, x + _PAD, at, width - 2 * _PAD)
            at += block.height + 4


def design_svg(design: Design) -> str:
    """The loops of a design as SVG; of groups with variants, the first."""
    colours = {u: f"{SERIES[i % len(SERIES)]}55" for i, u in enumerate(design.arch.units)}
    blocks = []
    for candidates in design.groups:
        group = candidates.groups[0]
        more = f"first of {len(candidates.groups)} variants: {group.variant}" if len(candidates.groups) > 1 else ""
        sizes = ", ".join(f"{n} = {_size(s)}" for n, s in group.sizes.items())
        blocks.append(_Block(f"{group.name}   {sizes}", more, "#f5f7f9", True, [_loops(group, design, colours)]))
    canvas = Canvas()
    head = f"{design.name}: {design.cascade.name} on {design.arch.name}"
    width = max(*(b.width for b in blocks), width_of(head, 13, bold=True), 320.0)
    canvas.text(_EDGE, 22, head, 13, bold=True)
    y = 34.0
    for block in blocks:
        block.draw(canvas, _EDGE, y, width)
        y += block.height + 10
    x = float(_EDGE)
    for unit, colour in colours.items():
        canvas.box(x, y, 14, 14, colour, radius=3)
        canvas.text(x + 19, y + 11, unit, 11)
        x += 40 + width_of(unit, 11)
    return canvas.drawing(width + 2 * _EDGE, y + 14 + _EDGE, head)


def _loops(group: Group, design: Design, colours: Mapping[str, str]) -> _Block:
    held: dict[str, list[str]] = {}
    for keep in group.keeps:
        loop = keep.under if keep.under == ALL else group.leaves(keep.under, design.cascade)[-1]
        held.setdefault(loop, []).append(f"{keep.tensor}@{keep.level}")

    def kept(*loops: str) -> str:
        found = [t for x in loops for t in held.get(x, [])]
        return f"keeps {', '.join(found)}" if found else ""

    stages = [
        _Block(f"stage {i + 1}" if len(group.stages) > 1 else "side by side", "", "#ffffff", False,
               [_einsum(group, n, colours, kept) for n in stage])
        for i, stage in enumerate(group.stages)
    ]  # fmt: skip
    inside = stages
    for loop in reversed(group.loops):
        inside = [_Block(f"for {loop}", kept(loop), "#ffffff", False, inside)]
    return _Block("once", kept(ALL), "#ffffff", False, inside)


def _einsum(group: Group, name: str, colours: Mapping[str, str], kept) -> _Block:
    b = group.bindings[name]
    spatial = ", ".join(f"{d}: {' '.join(r)}" for d, r in b.spatial.items())
    own = [x for x in b.loops if x not in group.loops]
    loops = f"  for {' '.join(own)}" if own else ""
    return _Block(f"{name}  ({spatial}){loops}", kept(*own), colours[b.unit], False)


def _size(value: TileSize) -> str:
    if isinstance(value, Auto):
        return value.kind
    return str(list(value)) if isinstance(value, tuple) else format_expr(value).lower()
