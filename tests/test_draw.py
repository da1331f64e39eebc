"""Results that draw themselves: well-formed, with every part named, and at the colour of its pass."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from commandline import text_of
from test_explore import SMALL

from fusemodel import compare, evaluate, load_cascade, load_design, parse_cascade
from fusemodel.arch import parse_architecture
from fusemodel.cascade import extents_of
from fusemodel.cascade.workload import load_workload
from fusemodel.explore import best_mapping
from fusemodel.library import names
from fusemodel.report import Request, Section
from fusemodel.report.draw import bars, cascade_svg
from fusemodel.simulate import simulate

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [t.text or "" for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def fill_of(svg: str, name: str) -> str | None:
    """The fill of the box drawn just before a text."""
    fill = None
    for shape in ElementTree.fromstring(svg).iter():
        if shape.tag == f"{SVG}rect":
            fill = shape.get("fill")
        if shape.tag == f"{SVG}text" and shape.text == name:
            return fill
    raise AssertionError(name)


@pytest.mark.parametrize("name", sorted(names("cascades"))[::6])
def test_every_tensor_is_drawn_inside_the_picture(name):
    cascade = load_cascade(name)
    svg = cascade._repr_svg_()
    assert set(cascade.tensors) <= set(texts(svg))
    root = ElementTree.fromstring(svg)
    width, height = float(root.get("width")), float(root.get("height"))
    for box in root.iter(f"{SVG}rect"):
        if "%" not in box.get("width"):
            assert 0 <= float(box.get("x")) <= float(box.get("x")) + float(box.get("width")) <= width
            assert 0 <= float(box.get("y")) <= float(box.get("y")) + float(box.get("height")) <= height


def test_colours_are_passes():
    svg = cascade_svg(load_cascade("attention-3pass"))
    assert [t for t in texts(svg) if t.startswith("pass ")] == ["pass 1 over m", "pass 2 over m", "pass 3 over m"]
    assert fill_of(svg, "QK") == fill_of(svg, "pass 1 over m")
    assert fill_of(svg, "SN") == fill_of(svg, "pass 2 over m")
    assert fill_of(svg, "A") == fill_of(svg, "pass 3 over m")
    assert fill_of(svg, "Q") == "#ffffff"


def test_arrows_go_down_and_steps_of_a_recurrence_are_dashed():
    svg = cascade_svg(load_cascade("attention-1pass"))
    paths = [p for p in ElementTree.fromstring(svg).iter(f"{SVG}path") if p.get("marker-end")]
    dashed = [p for p in paths if p.get("stroke-dasharray")]
    assert len(dashed) == 3  # RM from itself, SPD from RD, SPNV from RNV
    for p in paths:
        x = [float(n) for n in re.findall(r"-?[\d.]+", p.get("d"))]
        assert (x[-1] > x[1]) != (p in dashed)


def test_a_mapping_names_every_einsum_and_what_is_kept():
    svg = load_design("fusemax")._repr_svg_()
    shown = texts(svg)
    for name, binding in load_design("fusemax").groups[0].groups[0].bindings.items():
        line = next(t for t in shown if t.startswith(f"{name}  ("))
        assert all(leaf in line for leaf in binding.loops)
    assert "keeps K@global_buffer, V@global_buffer" in shown
    assert {"for p2", "for m1", "stage 4"} <= set(shown)


def test_an_evaluation_shows_its_numbers():
    found = evaluate("fusemax", "bert", "64K")
    html = found._repr_html_()
    share = 64 / 137 * 0.99096  # of the 137 slots of a point, at the published utilisation
    for said in ("7.403 s", "99.1%", "array_1d", f"SLNV: {share:.1%}"):
        assert said in html


def test_a_comparison_shows_its_means():
    found = compare(Request((Section("x", "fusemax", ("flat",)),), ("bert",), (1024,)))
    assert f"{found.mean['fusemax']['flat'].speedup:.2f}x" in found._repr_html_()


def test_a_front_is_drawn_with_the_bound_and_the_best():
    text = "name: x\nranks: {m: 8, n: 8, k: 8}\ninputs: {A: [m, k], B: [k, n]}\noutputs: [Z]\neinsums: |\n"
    cascade = parse_cascade(f"{text}  Z[m, n] = A[m, k] * B[k, n]\n")
    arch = parse_architecture(SMALL.replace("{size}", "400"))
    found = best_mapping(cascade, arch, extents_of(cascade), front=("latency", "energy", "buffer"))
    assert len(found.front) > 2
    root = ElementTree.fromstring(found._repr_svg_())
    dots = sorted(root.iter(f"{SVG}circle"), key=lambda d: float(d.get("cx")))
    cycles = sorted(p.values["latency"] for p in found.front)
    assert len(dots) == len(cycles)
    places = [float(d.get("cx")) for d in dots]
    for cx, n in zip(places, cycles, strict=True):  # where they stand is to scale
        share = (n - cycles[0]) / (cycles[-1] - cycles[0])
        assert (cx - places[0]) == pytest.approx(share * (places[-1] - places[0]), abs=0.2)
    width, height = float(root.get("width")), float(root.get("height"))
    assert all(0 < float(d.get("cx")) < width and 0 < float(d.get("cy")) < height for d in dots)
    alone = best_mapping(cascade, arch, extents_of(cascade))
    assert len(list(ElementTree.fromstring(alone._repr_svg_()).iter(f"{SVG}circle"))) == 1
    assert "best by latency, dram, energy, proven" in alone._repr_html_()
    assert "<svg" in alone._repr_html_()


def test_text_is_escaped():
    text = re.sub(r"(?m)^name: .*$", "name: 'a<b>&'", text_of("attention-3pass"))
    svg = parse_cascade(text)._repr_svg_()
    assert "a<b>" not in svg
    assert "a<b>&" in texts(svg)
    assert "<i>" not in bars("<i>", {"<i>": {"<i>": 0.5}})


def test_a_simulation_shows_its_waterfall():
    found = simulate(load_design("fusemax-arch"), load_workload("bert"), 2**12, window=60, window_from=1000)
    svg = found._repr_svg_()
    shown = texts(svg)
    window = found.windows[0]
    assert {"array_2d", "array_1d", "dram", "QK", "SLNV", "wait", window.what} <= set(shown)
    tips = [t.text or "" for t in ElementTree.fromstring(svg).iter(f"{SVG}title")]
    assert len([t for t in tips if ", cycles " in t]) - 1 == len(window.spans)
    assert any(t.startswith("wait: drain") for t in tips)
    drawn = [(float(b.get("x")), float(b.get("width"))) for b in ElementTree.fromstring(svg).iter(f"{SVG}rect")
             if b.find(f"{SVG}title") is not None]  # fmt: skip
    longest = max(window.spans, key=lambda s: s.end_cycles - s.begin_cycles)
    scale = 860 / (window.end_cycles - window.begin_cycles)
    assert max(w for _, w in drawn) == pytest.approx((longest.end_cycles - longest.begin_cycles) * scale, abs=0.1)
    html = found._repr_html_()
    assert svg in html
    assert "in the simulation)" in html
    assert "waits: drain" in html


@pytest.mark.parametrize("name", ["fusemax", "flat", "flash3-causal"])
def test_no_unit_works_longer_than_the_design_takes(name):
    """On a machine of many instances too; what a unit does for others is in none of its own Einsums."""
    found = evaluate(name, seq=16384)
    for unit, busy in found.busy.items():
        assert sum(found.active(unit).values()) <= busy + 1e-12
        assert busy <= 1 + 1e-9
