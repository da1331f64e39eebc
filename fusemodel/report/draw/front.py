"""What a search found, for notebooks: the mappings that no other is as good as, in two objectives, and the bound."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from itertools import pairwise

import numpy as np

from fusemodel.explore import Found, Point
from fusemodel.explore.front import front
from fusemodel.quantities import count, percent, size
from fusemodel.report.draw.svg import Canvas

_WIDTH, _HEIGHT, _LEFT, _TOP, _TICKS = 420, 240, 96, 44, 4
_COLOUR, _OTHER = "#0072b2", "#d55e00"


def found_html(found: Found) -> str:
    """The best mapping, how certain it is, and the front as a picture."""
    said = "proven" if found.proven else f"at most {percent(found.gap)} above the bound"
    head = f"{found.design.name} on {found.design.arch.name}: best by {', '.join(found.objectives)}, {said}"
    rows = [(_axis(o, found.best)[0], _axis(o, found.best)[1](v)) for o, v in found.best.values.items()]
    body = "".join(f"<tr><td>{escape(n)}</td><td style='text-align:right'>{escape(v)}</td></tr>" for n, v in rows)
    return f"<h4>{escape(head)}</h4><table><tbody>{body}</tbody></table>{found_svg(found)}"


def found_svg(found: Found) -> str:
    """Mappings of the front (the best alone, where there is none) by the first objective and the next one in which they
    differ; dashed, the bound below which no mapping goes in the first."""
    points = list(found.front or (found.best,))
    x, y = _axes(found, points)
    points.sort(key=lambda p: (p.values[x], p.values[y]))
    xs = np.array([p.values[x] for p in points])
    ys = np.array([p.values[y] for p in points])
    across, up = _scale(np.append(xs, found.bound)), _scale(ys)

    def at(a: float, b: float) -> tuple[float, float]:
        return _LEFT + across(a) * _WIDTH, _TOP + (1 - up(b)) * _HEIGHT

    canvas = Canvas()
    canvas.text(
        _LEFT, 18, f"{len(points)} mappings that none beats" if len(points) > 1 else "best mapping", 12, bold=True
    )
    _frame(canvas, found, (x, y), (np.append(xs, found.bound), ys), at)
    canvas.line(at(found.bound, 0)[0], _TOP, at(found.bound, 0)[0], _TOP + _HEIGHT, _OTHER, dashes="5 4")
    canvas.text(at(found.bound, 0)[0] + 4, _TOP + 12, "bound", 10, colour=_OTHER)
    steps = [points[i] for i in sorted(front(np.stack([xs, ys], axis=1)))]
    for a, b in pairwise(steps):  # those that are best in these two alone: as good as whatever is worse in both
        (x0, y0), (x1, y1) = at(a.values[x], a.values[y]), at(b.values[x], b.values[y])
        canvas.line(x0, y0, x1, y0, _COLOUR)
        canvas.line(x1, y0, x1, y1, _COLOUR)
    for p in sorted(points, key=lambda p: p.values == found.best.values):  # the best over the others
        tip = ", ".join(f"{_axis(o, p)[0]} {_axis(o, p)[1](v)}" for o, v in p.values.items())
        best = p.values == found.best.values
        canvas.dot(*at(p.values[x], p.values[y]), 5 if best else 4, _OTHER if best else _COLOUR, tip)
    return canvas.drawing(_LEFT + _WIDTH + 24, _TOP + _HEIGHT + 48, f"{found.design.name}: {y} over {x}")


def _axes(found: Found, points: list[Point]) -> tuple[str, str]:
    x = found.objectives[0]
    others = [o for o in dict.fromkeys((*found.objectives, *found.best.values)) if o != x]
    return x, next((o for o in others if len({p.values[o] for p in points}) > 1), others[0])


def _axis(objective: str, point: Point) -> tuple[str, Callable[[float], str]]:
    """The label of an objective, with its unit, and its values as text."""
    word = point.design.arch.word_bytes
    return {
        "latency": ("latency (cycles)", count), "energy": ("energy (pJ)", count), "edp": ("EDP (pJ x cycles)", count),
        "dram": ("off-chip traffic", lambda v: size(v * word)), "buffer": ("space on chip", lambda v: size(v * word)),
    }[objective]  # fmt: skip


def _scale(values: np.ndarray) -> Callable[[float], float]:
    """Where a value stands between the ends of an axis, with a margin."""
    low, high = float(values.min()), float(values.max())
    span = high - low or abs(high) or 1.0
    return lambda v: 0.06 + 0.88 * (v - low) / span


def _frame(
    canvas: Canvas, found: Found, names: tuple[str, str], values: tuple[np.ndarray, np.ndarray],
    at: Callable[[float, float], tuple[float, float]],
) -> None:  # fmt: skip
    canvas.box(_LEFT, _TOP, _WIDTH, _HEIGHT, "none", "#d5dae0", radius=0)
    (x, told_x), (y, told_y) = (_axis(n, found.best) for n in names)
    for v in np.unique(np.linspace(values[0].min(), values[0].max(), _TICKS)):
        canvas.text(at(v, 0)[0], _TOP + _HEIGHT + 16, told_x(v), 10, anchor="middle")
    for v in np.unique(np.linspace(values[1].min(), values[1].max(), _TICKS)):
        canvas.text(_LEFT - 6, at(0, v)[1] + 4, told_y(v), 10, anchor="end")
    canvas.text(_LEFT + _WIDTH / 2, _TOP + _HEIGHT + 36, x, 11, anchor="middle")
    canvas.text(_LEFT, _TOP - 10, y, 11)


__all__ = ["found_html", "found_svg"]
