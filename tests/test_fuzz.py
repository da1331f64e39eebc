"""Files and arguments spoilt at random: nothing but InputError may come out, and what succeeds is finite."""

from __future__ import annotations

import math
import os
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from commandline import fusemodel, text_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusemodel import InputError, evaluate, library, parse_architecture, parse_cascade, parse_design
from fusemodel.arch.units import KINDS, quantity
from fusemodel.cascade.workload import parse_workload
from fusemodel.mapping import Design
from fusemodel.yamlfile import parse_yaml

#: Examples of each test; set to many, every run tries others.
EXAMPLES = int(os.environ.get("FUSEMODEL_FUZZ", "0"))
quick = settings(
    max_examples=EXAMPLES or 150, deadline=None, derandomize=not EXAMPLES, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)  # fmt: skip

NUMBERS = [
    "0", "-1", "1", "2", "3", "7", "255", "256", "1e30", "1e308", "1e-300", "nan", ".nan", "inf", "-.inf", "2.5",
    "0x10", "1_0", "1:30", "true", "null", "~", "''", "99999999999999999999", "1T", "16K", "m", "p / 3", "1 / 0",
    "max", "any", "[1, 2]", "[]", "{}",
]  # fmt: skip
ODD = [
    "???", "[", "]", "{", "}", ":", "-", "&a", "*a", "!!binary x", "<<: *a", "|", ">", "#", "\t", "\0", "\n", "\r",
    "'", '"', "%", "@", "`", ",", "\u2028", "é", "٣", "\ufeff", "---", "...", "=", "->", "where", "sum[m]", "select(",
    "IDX[p]", "0", "all", "[/]", "\ud800", "==", "p + 1",
]  # fmt: skip
TOKEN = re.compile(r"[A-Za-z_]\w*|\d[\w.]*|\s+|.", re.DOTALL)
FITS: dict[str, Callable[[str], object]] = {
    "number": lambda p: p[0].isdigit(),
    "name": lambda p: p.isidentifier(),
    "token": lambda p: not p.isspace(),
    "swap": lambda p: not p.isspace(),
}


@st.composite
def spoilt(draw: st.DrawFn, name: str) -> str:
    """The text of a library file after a few changes to its characters, tokens or lines."""
    text = text_of(name)
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(
            st.sampled_from(
                ["number", "number", "name", "name", "name", "token", "swap", "line", "character", "insert"]
            )
        )
        parts = text.splitlines(keepends=True) if kind == "line" else TOKEN.findall(text)
        at = [i for i, p in enumerate(parts) if FITS.get(kind, str)(p)]
        if not at:
            continue
        i, j = draw(st.sampled_from(at)), draw(st.sampled_from(at))
        match kind:
            case "number":
                parts[i] = draw(st.sampled_from(NUMBERS))
            case "name":
                parts[i] = parts[j]
            case "swap":
                parts[i], parts[j] = parts[j], parts[i]
            case "insert":
                parts[i] += draw(st.sampled_from(ODD))
            case "character":
                parts[i] = parts[i][1:] + draw(st.sampled_from(["", "x", "0", " "]))
            case _:
                parts[i] = draw(st.sampled_from(["", 2 * parts[i], parts[j]]))
        text = "".join(parts)
    return text


def any_of(kind: str) -> st.SearchStrategy[str]:
    return st.sampled_from(sorted(library.names(kind))).flatmap(spoilt)


def tried(call: Callable[[], object]) -> object | None:
    """The result, or None where the input was refused with a message; any warning is an error too."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return call()
        except InputError as error:
            message = str(error)
    assert message.isprintable()
    assert 0 < len(message) < 3000
    return None


def sound(design: Design, *arguments: object) -> None:
    """Evaluate a design; where that is not refused, everything is finite and the time is positive."""
    result = tried(lambda: evaluate(design, *arguments))  # type: ignore[arg-type]
    if result is None:
        return
    figures = [result.latency_s, result.cycles, result.energy_j, result.dram_bytes, *result.utilization.values()]  # type: ignore[attr-defined]
    assert all(math.isfinite(f) and f >= 0 for f in figures), figures
    assert result.latency_s > 0  # type: ignore[attr-defined]


MAPPINGS = ["fusemax", "flat", "fusemax-cascade", "unfused"]


@quick
@given(any_of("cascades"))
def test_spoilt_cascades(text: str) -> None:
    tried(lambda: parse_cascade(text))


@quick
@given(any_of("archs"))
def test_spoilt_architectures(text: str) -> None:
    arch = tried(lambda: parse_architecture(text))
    if arch is not None:
        design = tried(lambda: parse_design(text_of("fusemax"), arch=arch))  # type: ignore[arg-type]
        if design is not None:
            sound(design)  # type: ignore[arg-type]


@quick
@given(st.sampled_from(MAPPINGS).flatmap(spoilt), st.sampled_from([None, 1024, 4096, 3, 2**40]))
def test_spoilt_mappings(text: str, seq: int | None) -> None:
    design = tried(lambda: parse_design(text))
    if design is not None:
        sound(design, "bert", seq)  # type: ignore[arg-type]


@quick
@given(any_of("workloads"), st.sampled_from([None, 1024]))
def test_spoilt_workloads(text: str, seq: int | None) -> None:
    workload = tried(lambda: parse_workload(text))
    if workload is not None:
        sound(parse_design(text_of("fusemax")), workload, seq)


@quick
@given(spoilt("attention-1pass"), st.sampled_from(["fusemax", "fusemax-cascade"]))
def test_spoilt_cascades_in_a_mapping(cascade: str, name: str) -> None:
    if tried(lambda: parse_cascade(cascade)) is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cascade.yaml"
        path.write_text(cascade, encoding="utf-8", errors="replace")
        design = tried(lambda: parse_design(text_of(name).replace("attention-1pass", str(path))))
    if design is not None:
        sound(design)  # type: ignore[arg-type]


@quick
@given(
    st.sampled_from(["fusemax", "flat", "flat-best", "unfused", "layer-fusemax", "fusemax-arch"]),
    st.dictionaries(st.sampled_from(["b", "h", "p", "m", "e", "f", "m0", "m1", "p0", "p1", "p2", "d"]),
                    st.sampled_from([1, 2, 3, 32, 64, 100, 256, 1000, 2**20, 2**40, 2**31 - 1]), max_size=3),
    st.sampled_from([None, 1, 1024, 1000, 65536, 2**40, 2**40 - 1]),
)  # fmt: skip
def test_any_sizes(name: str, sets: dict[str, int], seq: int | None) -> None:
    sound(parse_design(text_of(name)), "bert", seq, sets)


@quick
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(ODD + NUMBERS + ["a: ", "- ", "\n", "  "]), max_size=12).map("".join)
)
def test_any_text_as_yaml(text: str) -> None:
    tried(lambda: parse_yaml(text))


@quick
@given(
    st.text(max_size=20) | st.lists(st.sampled_from([*"0123456789.eE+-*/^ ()[]", "GHz", "pJ", "mm", "s"])).map("".join)
)
def test_any_text_as_a_quantity(text: str) -> None:
    for kind in KINDS:
        try:
            value, message = quantity(text, kind, positive=False), "expected"
        except ValueError as error:
            value, message = 0, str(error)
        assert 0 <= value < math.inf
        assert "expected" in message


WORDS = [
    "list", "show", "eval", "compare", "run", "fusemax", "flat", "bert", "attention-1pass", "fusemax-cloud", "--json",
    "--seq", "--set", "--workload", "--arch", "--all", "--seed", "--dtype", "1K", "p0=64", "b=2", "p0=3", "=", "",
    "-", "--", ".", "/", "nan", "1K,2K", "-1", "\0", "--help", "-h", "--version", "x.yaml", "é", "\udcff", "float32",
    "mappings", "b=1T", "16K", "2", "t5,xlm", "[/]", "~", "..",
]  # fmt: skip


@quick
@given(st.lists(st.sampled_from(WORDS), max_size=6))
def test_any_arguments(words: list[str]) -> None:
    if "compare" in words[:2] or ("run" in words and "--all" in words):
        words = [w for w in words if w not in ("--all",)]
    ran = fusemodel(*words)
    assert ran.code in (0, 1, 2)
    assert "Traceback" not in ran.out + ran.err
    if ran.code == 2 and words:
        assert ran.err.startswith("error: ") or not ran.err
        assert ran.err.count("\n") <= 1
