"""A canvas for small drawings. Text is escaped; sizes are in pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

SERIES = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00", "#999999", "#44aa99", "#882255")
#: The same, paler, for what comes after these.
PALE = ("#bbe2f7", "#f7d894", "#8fd3bd", "#e9c4d8", "#faf4b0", "#86b9da", "#f0b48a", "#d0d0d0", "#b0dcd6", "#c897ae")
FONT = "ui-sans-serif, system-ui, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, 'DejaVu Sans Mono', monospace"


def width_of(text: str, size: float, *, mono: bool = False, bold: bool = False) -> float:
    """About how wide a text is drawn; never much less."""
    return len(text) * size * (0.61 if mono else 0.6 if bold else 0.56)


@dataclass
class Canvas:
    """Shapes in the order in which they are drawn."""

    shapes: list[str] = field(default_factory=list)

    def box(
        self, x: float, y: float, width: float, height: float, fill: str = "#ffffff", line: str = "#8a939d",
        *, radius: float = 5, tip: str = "",
    ) -> None:  # fmt: skip
        title = f"<title>{escape(tip)}</title>" if tip else ""
        self.shapes.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" rx="{radius}" '
            f'fill="{fill}" stroke="{line}">{title}</rect>'
        )

    def text(
        self, x: float, y: float, text: str, size: float = 12, *, anchor: str = "start", bold: bool = False,
        mono: bool = False, colour: str = "#1a1d21",
    ) -> None:  # fmt: skip
        weight = ' font-weight="600"' if bold else ""
        self.shapes.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{weight} '
            f"font-family={quoteattr(MONO if mono else FONT)}>{escape(text)}</text>"
        )

    def dot(self, x: float, y: float, radius: float, fill: str, tip: str = "") -> None:
        title = f"<title>{escape(tip)}</title>" if tip else ""
        self.shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}">{title}</circle>')

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: str, *, dashes: str = "") -> None:
        dash = f' stroke-dasharray="{dashes}"' if dashes else ""
        self.shapes.append(f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{colour}"{dash}/>')

    def hatched(self) -> None:
        """A pattern for what is empty, ``url(#wait)``."""
        self.shapes.append(
            '<defs><pattern id="wait" width="6" height="6" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><rect width="6" height="6" fill="#ffffff"/>'
            '<path d="M0 0V6" stroke="#b6bec6" stroke-width="1.5"/></pattern></defs>'
        )

    def curve(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Down, from the bottom of one box to the top of another."""
        middle = (y0 + y1) / 2
        self._arrow(f"M{x0:.1f} {y0:.1f}C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}")

    def back(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Up or round, from the right side of one box to that of another, dashed."""
        out = max(x0, x1) + 22
        self._arrow(f"M{x0:.1f} {y0:.1f}C{out:.1f} {y0:.1f} {out:.1f} {y1:.1f} {x1:.1f} {y1:.1f}", "4 3")

    def _arrow(self, path: str, dashes: str = "") -> None:
        dash = f' stroke-dasharray="{dashes}"' if dashes else ""
        self.shapes.append(f'<path d="{path}" fill="none" stroke="#6b7680"{dash} marker-end="url(#tip)"/>')

    def drawing(self, width: float, height: float, title: str) -> str:
        """The whole drawing, on white, with a title for screen readers."""
        arrow = (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="#6b7680"/></marker></defs>'
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" style="display:block;max-width:100%;height:auto">'
            f'<title>{escape(title)}</title>{arrow}<rect width="100%" height="100%" fill="#ffffff"/>'
            + "".join(self.shapes)
            + "</svg>"
        )
