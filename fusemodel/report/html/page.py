"""The page: its template filled in, with its style, its script and the plotting library inside."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from fusemodel.report.compare import Comparison
from fusemodel.report.html.content import content

_HERE = Path(__file__).parent


def html_page(found: Comparison, command: str) -> str:
    """A comparison as one page; ``command`` is shown as what made it. Text from files is escaped everywhere."""
    from plotly.offline import get_plotlyjs

    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    environment.filters["code"] = _code
    page = content(found, command)
    return environment.get_template("page.html.j2").render(
        page=page,
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((_HERE / "page.js").read_text(encoding="utf-8")),
        plotting=Markup(get_plotlyjs()),
        data=Markup(_embedded(page.data)),
    )


def _code(text: str) -> Markup:
    """Text from a file, escaped, with what stands in backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one without its partner
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def _embedded(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(_clean(data), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _clean(data: Any) -> Any:
    """Floats that JSON lacks as null, others with six digits."""
    match data:
        case dict():
            return {str(k): _clean(v) for k, v in data.items()}
        case list() | tuple():
            return [_clean(v) for v in data]
        case float():
            return float(f"{data:.6g}") if math.isfinite(data) else None
    return data
