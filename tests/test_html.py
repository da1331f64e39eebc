"""The HTML report: what it says, that it says no more than it should, and, in a real browser, that it works.

The browser is Debian's `chromium`, driven by Playwright; without one those tests are skipped, except where `CI` is set.
"""

from __future__ import annotations

import os
import re
import shutil
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest
from commandline import fusemodel, text_of

from fusemodel import compare
from fusemodel.report import Ranking, Request, Section
from fusemodel.report.html import html_page

BROWSER = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
needs_browser = pytest.mark.skipif(BROWSER is None and not os.environ.get("CI"), reason="no chromium on this machine")
SIX_MB = 6_000_000
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def default_page(default_comparison, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("html") / "report.html"
    path.write_text(html_page(default_comparison, "fusemodel compare --html report.html"), encoding="utf-8")
    return path


def said(page: Path) -> str:
    """The text of the page, without its scripts and styles."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def test_small_and_alone(default_page):
    text = default_page.read_text(encoding="utf-8")
    assert len(text.encode()) < SIX_MB
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", own)
    assert "default-src 'none'" in text


def test_says_the_headline_numbers_and_what_was_published(default_page, default_comparison):
    found = default_comparison
    text = said(default_page)
    ratio = found.mean["fusemax"]["flat"]
    assert f"fusemax is {ratio.speedup:.2f} times as fast as flat" in text
    assert f"takes {ratio.energy:.3f} of its energy" in text
    assert "Published: speed-up 6.72" in text
    assert "3 passes over m as written, 1 by algebra" in text
    for name in ("archs/fusemax-cloud.yaml", "mappings/attention/flat.yaml", "workloads/bert.yaml"):
        assert name in text
    assert "fusemodel compare --html report.html" in text


def test_every_evaluation_is_in_a_table(default_page, default_comparison):
    found = default_comparison
    rows = re.findall(r"<tr>.*?</tr>", default_page.read_text(encoding="utf-8"))
    assert sum("<td" in r for r in rows) > len(found.rows)
    a = found.at("fusemax")[0]
    assert any(a.bound in r and "fusemax<" in r and "bert" in r for r in rows)


def test_the_tables_have_where_time_and_energy_go(default_page, default_comparison):
    """QK of FuseMax on its 2D array: its busy cycles over the latency, at every point."""
    text = default_page.read_text(encoding="utf-8")
    row = next(r for r in re.findall(r"<tr>.*?</tr>", text) if re.search(r">fusemax<.*>array_2d<.*>QK<", r))
    shares = [sum(e.cycles for e in r.einsums if e.name == "QK") / r.cycles for r in default_comparison.at("fusemax")]
    assert re.findall(r"([\d.]+)%", row) == [f"{100 * s:.1f}" for s in shares]
    assert "Published: speed-up 10.05" in text


def test_same_input_same_page(tmp_path):
    pages = []
    for _ in range(2):
        found = compare(Request((Section("x", "fusemax", ("flat",)),), ("bert",), (1024,)))
        pages.append(html_page(found, "fusemodel compare --html report.html"))
    assert pages[0] == pages[1]


def evil_page(tmp_path: Path) -> Path:
    mapping = tmp_path / "evil.yaml"
    text = re.sub(r"(?m)^name: .*$", "name: 'a<b>&amp;'", text_of("fusemax"))
    text = re.sub(r"(?m)^about: .*$", f"about: '{EVIL}'", text)
    mapping.write_text(text)
    found = compare(Request((Section("x", "fusemax", (str(mapping),)),), ("bert",), (1024,)))
    page = tmp_path / "evil.html"
    page.write_text(html_page(found, f"fusemodel {EVIL}"), encoding="utf-8")
    return page


def test_text_from_files_is_escaped(tmp_path):
    page = evil_page(tmp_path).read_text(encoding="utf-8")
    assert EVIL not in page
    assert "<img src=x" not in page


def test_command_line(tmp_path):
    out = tmp_path / "r.html"
    ran = fusemodel("compare", "flat", "fusemax", "-w", "bert", "-s", "1K", "--html", out)
    assert ran.code == 0
    assert "times as fast as flat" in said(out)
    ran = fusemodel("compare", "flat", "fusemax", "-w", "bert", "-s", "1K", "--html", tmp_path / "no" / "r.html")
    assert ran.code == 2
    assert "cannot be written" in ran.err
    assert not list(tmp_path.glob("**/*.part"))


def test_a_ranking_is_judged_by_its_fastest():
    ranking = Ranking("Two", {"flat": "three passes", "fusemax": "one pass"})
    found = compare(Request((), ("bert",), (1024,), rankings=(ranking,)))
    assert [(s.subject, s.baselines) for s in found.judged] == [("fusemax", ("flat",))]
    page = html_page(found, "fusemodel compare")
    assert f"fusemax is {found.against('fusemax', 'flat').speedup:.2f} times as fast as flat (three passes)" in page


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    assert BROWSER, "CI has to install chromium"
    with sync_playwright() as running:
        started = running.chromium.launch(executable_path=shutil.which(BROWSER), args=["--no-sandbox"])
        yield started
        started.close()


class Watched:
    """A page whose console, errors, dialogs and requests are kept."""

    def __init__(self, browser, path: Path, **options) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(**options)
        self.page.on("console", lambda m: self.problems.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.problems.append(str(e)))
        self.page.on("dialog", lambda d: (self.problems.append(d.message), d.dismiss()))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#roofline .main-svg", state="attached")

    def names(self, plot: str) -> list[str]:
        return self.page.evaluate(f"document.getElementById('{plot}').data.map(t => t.name)")


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (768, "dark"), (390, "light")])
def test_renders_at_three_widths(default_page, browser, width, scheme):
    watched = Watched(browser, default_page, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = watched.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for plot in ("speedup", "energy", "utilization", "traffic", "active", "components", "roofline"):
        assert page.locator(f"#{plot} .main-svg").first.bounding_box()["width"] > 200
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    assert not watched.problems
    assert watched.requests == [default_page.as_uri()]


@needs_browser
def test_plots_show_the_numbers_and_react(default_page, default_comparison, browser):
    watched = Watched(browser, default_page, viewport={"width": 1280, "height": 900})
    page = watched.page
    found = default_comparison
    drawn = page.evaluate("document.getElementById('speedup').data.find(t => t.name === 'flat').y")
    ours = {(r.mapping, r.workload, r.seq): r.latency_s for r in found.rows}
    expected = [ours["flat", "bert", s] / ours["fusemax", "bert", s] for s in found.request.seqs]
    assert drawn == pytest.approx(expected, rel=1e-4)

    page.get_by_role("checkbox", name="flat-best").uncheck()
    assert "flat-best" not in watched.names("speedup")
    page.locator("#workload").select_option("xlm")
    drawn = page.evaluate("document.getElementById('speedup').data.find(t => t.name === 'flat').y")
    assert drawn[0] == pytest.approx(ours["flat", "xlm", 1024] / ours["fusemax", "xlm", 1024], rel=1e-4)
    page.locator("#section").select_option(label="Whole transformer layer")
    assert "layer-flat" in watched.names("speedup")

    ink = "getComputedStyle(document.querySelector('#speedup .xtick text')).fill"
    before = page.evaluate(ink)
    page.locator("#theme").click()
    assert page.evaluate(ink) != before

    box = page.locator("#speedup .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    page.wait_for_selector("#speedup .hoverlayer .legend, #speedup .hoverlayer .hovertext", state="attached")
    assert not watched.problems


@needs_browser
def test_usable_by_keyboard_and_named_for_screen_readers(default_page, browser):
    page = Watched(browser, default_page).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    unnamed = page.evaluate("""[...document.querySelectorAll('select, input, button, .plot, .scroll')].filter(
        e => !(e.labels?.length || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent))
        .length""")
    assert unnamed == 0
    page.get_by_role("checkbox", name="unfused").focus()
    page.keyboard.press("Space")
    assert not page.get_by_role("checkbox", name="unfused").is_checked()
    page.locator("#speedup").focus()
    for key in ("ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    drawn = page.evaluate("document.getElementById('speedup').data[0].y")
    assert page.locator("#speedup-said").inner_text() == f"flat, 4K: {drawn[1]:.4g} times as fast"
    page.keyboard.press("Enter")
    assert "(hidden)" in page.locator("#speedup-said").inner_text()
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


@needs_browser
def test_text_from_files_runs_nothing(tmp_path, browser):
    watched = Watched(browser, evil_page(tmp_path))
    assert "a<b>&amp;" in watched.page.evaluate(
        "[...document.querySelectorAll('#legend label')].map(l => l.textContent)"
    )
    ticks = watched.page.evaluate("[...document.querySelectorAll('#components .ytick text')].map(t => t.textContent)")
    assert "a<b>&amp;" in ticks
    assert not watched.problems


@needs_browser
def test_prints(default_page, browser):
    pdf = Watched(browser, default_page).page.pdf()
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type /Page/") > 1


@needs_browser
def test_no_button_of_a_plot_sends_data_away(default_page, browser):
    page = Watched(browser, default_page).page
    titles = page.evaluate("[...document.querySelectorAll('#speedup .modebar-btn')].map(b => b.dataset.title)")
    assert titles == ["Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"]


@needs_browser
def test_under_a_finger_no_button_covers_a_plot(default_page, browser):
    watched = Watched(browser, default_page, viewport={"width": 390, "height": 900}, has_touch=True, is_mobile=True)
    assert watched.page.locator(".modebar-btn").count() == 0
    assert watched.page.locator(".finger").is_visible()
    assert not watched.page.locator(".mouse").is_visible()
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_has_no_energy_says_nothing_of_energy(tmp_path):
    out = tmp_path / "r.html"
    ran = fusemodel("compare", "flash3-causal", "flash2", "-s", "16K", "--html", out)
    assert ran.code == 0
    assert "of the energy" not in ran.out
    assert "of its energy" not in said(out)
