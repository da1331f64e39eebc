"""Damaged cascade files: whatever stands in them, they load or say what is wrong."""

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusemodel.cascade import Cascade, format_cascade, load_cascade, parse_cascade
from fusemodel.errors import InputError
from fusemodel.library import names

SETTINGS = settings(
    max_examples=400, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)  # fmt: skip
TEXTS = [names("cascades")[n].read_text(encoding="utf-8") for n in ("attention-1pass", "attention-3pass")]
TOKENS = [
    "[", "]", "(", ")", "{", "}", ":", ", ", "=", "+", "-", "*", "/", "//", "%", " where ", "->", "i", "m",
    "m1", "M1", "QK", "0", "1", "-1", "1e400", "inf", "nan", ".5", "1K", "9" * 30, "0x10", "1_0", "true", "~",
    "&a", "*a", "!x", "'", '"', "\n", "  ", "\t", "\x00", "\r", "#", "|", ">", "- ", "<<: ", "é", "\ufeff",
    "max", "sum[m](", "topk[m -> p](", "argmax[m](", "coalesce(", "ceil(", "select(", "not ", " and ", " or ",
    "<", "<=", "==", "?", "m+1", "batch: [b]\n", "split", "outputs",
]  # fmt: skip


@st.composite
def damaged(draw) -> str:
    """A library file after a few insertions, deletions, swaps of lines, and words put in the place of others."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.integers(0, 4))
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(1, 15)))
        if kind == 0:
            text = text[:start] + draw(st.sampled_from(TOKENS)) + text[start:]
        elif kind == 1:
            text = text[:start] + text[stop:]
        elif kind == 2:
            text = text[:start] + draw(st.text(max_size=4)) + text[stop:]
        elif kind == 3:
            lines = text.split("\n")
            a, b = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
            lines[a], lines[b] = lines[b], lines[a]
            text = "\n".join(lines)
        elif words := list(re.finditer(r"\w+", text)):
            a, b = draw(st.sampled_from(words)), draw(st.sampled_from(words))
            text = text[: a.start()] + b.group() + text[a.end() :]
    return text


def loaded(text: str) -> Cascade | None:
    """The cascade; None where an error says what is wrong and where. Any other exception fails the test."""
    try:
        return parse_cascade(text)
    except InputError as error:
        if error.where.line < 1 or not str(error).startswith("<text>:"):
            raise AssertionError(f"an error without a place: {error}") from error
        return None


@SETTINGS
@given(damaged())
def test_a_damaged_file_loads_or_says_what_is_wrong(text):
    cascade = loaded(text)
    assert cascade is None or parse_cascade(format_cascade(cascade)) == cascade


@settings(SETTINGS, max_examples=150)
@given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join))
def test_any_equation_loads_or_says_what_is_wrong(right):
    head = "ranks: {m: 4, i: 3, m1: 2}\ninputs: {QK: [m]}\noutputs: [Z]\n"
    loaded(f"{head}einsums: |\n  Z[m] = {right}\n")
    loaded(f"{head}einsums: |\n  Z[m] = QK[m] where {right}\n")
    loaded(f"ranks: {{m: {right}}}\ninputs: {{QK: [m]}}\noutputs: [Z]\neinsums: |\n  Z[m] = QK[m]\n")


def test_the_files_that_are_damaged_load():
    assert {load_cascade(n).name for n in ("attention-1pass", "attention-3pass")} == {
        "attention-1pass",
        "attention-3pass",
    }
