"""Pictures, with matplotlib."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fusemodel.analysis.bounds import Bounds
from fusemodel.arch import Architecture
from fusemodel.errors import InputError, Where, unknown
from fusemodel.model import Evaluation

FORMATS = ("svg", "pdf", "png")
_KIB = 2**10


@dataclass(frozen=True)
class Dot:
    """A design in the figure: what it has on chip, registers included, and what it moves (bytes)."""

    name: str
    cascade: str
    on_chip_bytes: float
    dram_bytes: float


def dot(found: Evaluation, arch: Architecture) -> Dot:
    """An evaluation as a dot. It has on chip what it keeps there, the register files of the units, and all of what is
    filled without being told: caches, and the memories of the instances, which several blocks may share."""
    whole = {n: v for n, v in arch.levels.items() if v.size_bytes and (v.kind == "cache" or v.per_instance)}
    filled = sum((v.size_bytes or 0.0) * (arch.instances if v.per_instance else 1) for v in whole.values())
    kept = max(
        (sum(n for level, held in g.footprint_bytes.items() if level not in (arch.outermost, *whole)
             for n in held.values()) for g in found.groups), default=0.0,
    )  # fmt: skip
    words = sum(u.size * u.registers.words for u in arch.units.values() if u.registers) * arch.instances
    return Dot(found.mapping, found.cascade, kept + filled + words * arch.word_bytes, found.dram_bytes)


def traffic_figure(
    least: Mapping[str, Bounds], dots: Sequence[Dot] = (), *, word_bytes: float = 2.0, title: str = ""
) -> Figure:
    """The traffic that no mapping of a cascade avoids against the storage on chip (:meth:`Bounds.traffic_bound`), one
    line a cascade, and designs as dots: every one lies on or above the line of its cascade."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    reach = [d.on_chip_bytes for d in dots]
    sizes = np.geomspace(min([_KIB, *reach]) / 2, max([64 * _KIB * _KIB, *reach]) * 2, 256)
    colours: dict[str, str] = {}
    for i, (name, bound) in enumerate(least.items()):
        words = [bound.traffic_bound(n / word_bytes) * word_bytes for n in sizes]
        colours[name] = f"C{i % 10}"
        axes.plot(sizes, words, color=colours[name], label=f"{name}: bound", lw=1.8, ls=("-", "--", "-.")[i % 3])
    for i, d in enumerate(dots):
        axes.plot(
            d.on_chip_bytes, d.dram_bytes, "osD^vP*X"[i % 8], color=colours.get(d.cascade, "black"), ms=7, mec="white",
            label=d.name,
        )  # fmt: skip
    axes.set(
        xscale="log", yscale="log", xlabel="storage on chip (bytes)", ylabel="off-chip traffic (bytes)", title=title
    )
    axes.grid(which="both", alpha=0.2)
    axes.legend(fontsize=8, frameon=False)
    return figure


def svg_text(figure: Figure, name: str) -> str:
    """A figure as an SVG element to stand in a page; ``name`` keeps its ids apart from those of others."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def save(figure: Figure, path: str) -> None:
    """Write a figure whole or not at all; the suffix says in which format."""
    target = Path(path)
    kind = target.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise unknown("format of a picture", kind or target.name, FORMATS)
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with matplotlib.rc_context({"svg.hashsalt": "fusemodel", "svg.fonttype": "none"}):
            figure.savefig(beside, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"cannot be written: {error.strerror or error}", Where(path)) from None
