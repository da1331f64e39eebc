"""Draws the pictures of the README and of validation with the tool itself: `.venv/bin/python docs/make_pictures.py`."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console, Group, RenderableType
from rich.text import Text

from fusemodel import compare, evaluate
from fusemodel.library import gpu_dir
from fusemodel.report import load_request
from fusemodel.report.html import html_page
from fusemodel.report.tables import comparison, evaluation

HERE = Path(__file__).parent


def save(name: str, command: str, shown: RenderableType, width: int) -> None:
    """What a command prints, as an SVG that needs nothing else to be shown."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(Group(Text(f"$ {command}", style="bold green"), Text(""), shown))
    (HERE / name).write_text(console.export_svg(title="fusemodel", unique_id=name.split(".")[0]), encoding="utf-8")


def plot_errors(name: str, *tables: str) -> None:
    """Predicted against measured times of some tables that ship."""
    given = [part for table in tables for part in ("--data", str(gpu_dir() / f"{table}.csv"))]
    subprocess.run(["fusemodel", "validate", *given, "--plot", str(HERE / name)], check=True, stdout=subprocess.DEVNULL)


def photograph(name: str) -> None:
    """The report as a browser shows it: its first screen, and its plots."""
    browser = next(b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b))
    page_file = HERE / "report.html"
    page_file.write_text(html_page(compare(load_request()), "fusemodel compare --html report.html"), encoding="utf-8")
    with sync_playwright() as running:
        started = running.chromium.launch(executable_path=shutil.which(browser), args=["--no-sandbox"])
        page = started.new_page(viewport={"width": 1120, "height": 860}, color_scheme="light")
        page.goto(page_file.as_uri())
        page.wait_for_selector("#roofline .main-svg", state="attached")
        page.screenshot(path=HERE / f"{name}.png")
        page.locator("#plots").scroll_into_view_if_needed()
        page.evaluate("document.getElementById('plots').scrollIntoView()")
        page.screenshot(path=HERE / f"{name}-plots.png")
        started.close()
    page_file.unlink()


if __name__ == "__main__":
    photograph("report")
    save(
        "eval.svg",
        "fusemodel eval fusemax --workload bert --seq 64K",
        evaluation(evaluate("fusemax", "bert", "64K")),
        128,
    )
    request = load_request()
    attention = request.sections[0]
    few = replace(attention, baselines=("flat", "flat-best", "unfused"))
    save(
        "compare.svg",
        "make compare        (the first part)",
        comparison(compare(replace(request, sections=(few,)))),
        124,
    )
    subprocess.run(
        [
            "fusemodel", "passes", "attention-3pass", "attention-2pass-deferred", "attention-1pass",
            "-w", "bert", "-s", "256K", "--plot", str(HERE / "bounds.svg"),
        ],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    plot_errors("validation.svg", "published-attention")
    plot_errors("measured.png", "measured-h100-sxm", "measured-h200-sxm")
