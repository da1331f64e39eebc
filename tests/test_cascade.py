"""Cascade files: what they parse to, how they print, extents, and the order of evaluation."""

import pytest
from hypothesis import HealthCheck, given, settings
from references.build import cascade_of, text_of
from strategies import cascade_texts, split_texts

from fusemodel.cascade import extents_of, format_cascade, format_einsums, load_cascade, parse_cascade
from fusemodel.cascade.ir import Apply, Extent, Number, RankValue, iteration_ranks
from fusemodel.cascade.plan import Compute, Loop, equations, plan
from fusemodel.cascade.printer import format_expr
from fusemodel.errors import InputError
from fusemodel.library import names

SETTINGS = settings(
    max_examples=200, derandomize=True, database=None, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


@SETTINGS
@given(cascade_texts())
def test_what_is_printed_parses_to_the_same(text):
    cascade = parse_cascade(text)
    printed = format_cascade(cascade)
    assert parse_cascade(printed) == cascade
    assert format_cascade(parse_cascade(printed)) == printed


@settings(SETTINGS, max_examples=50)
@given(split_texts())
def test_what_is_printed_of_splits_parses_to_the_same(texts):
    for text in texts:
        cascade = parse_cascade(text)
        assert parse_cascade(format_cascade(cascade)) == cascade


@pytest.mark.parametrize("name", sorted(names("cascades")))
def test_library_cascades_print_and_parse(name):
    cascade = load_cascade(name)
    assert parse_cascade(format_cascade(cascade)) == cascade


@pytest.mark.parametrize(
    "expression",
    [
        "X[p] - (X[p] - X[p])", "X[p] / (X[p] / X[p])", "-(X[p] + 1)", "(-X[p]) * 2", "X[p] * -2", "2 - -1 * X[p]",
        "X[p] // 2 * 2 % 3", "X[p] * (2 // P)", "max(X[p], -inf)", "(p < 2) + X[p]", "select(not p < 2, X[p], 0.5)",
        "select(p < 1 or p > 2 and X[p] > 0, X[p], 1e-6)", "select((p < 1 or p > 2) and X[p] > 0, X[p], 1)",
        "1.5e+20 * X[p]",
        "coalesce(X[p - 1], X[P - 1 - p])", "((p < 1) < 1) + X[p]", "not (p < 1) + X[p]", "-X[p] - -p", "pow(-X[p], 2)",
    ],
)  # fmt: skip
def test_brackets_are_kept_where_they_matter(expression):
    cascade = cascade_of(f"Z[p] = {expression}", ranks="p: 4", inputs="X: [p]", outputs="Z")
    assert parse_cascade(format_cascade(cascade)) == cascade


def test_equations_may_span_lines_and_hold_comments():
    cascade = cascade_of(
        "# first\nZ[p] = max(X[p],   # one\n           0)\n\nY[p] = Z[p]", ranks="p: 4", inputs="X: [p]", outputs="Y"
    )
    assert format_einsums(cascade) == "Z[p] = max(X[p], 0)\nY[p] = Z[p]"


def test_a_line_that_cannot_start_an_equation_goes_on_with_the_last():
    cascade = cascade_of(
        "G = X[p]\n  * X[p]\n\nZ[p]\n  = X[p]  # one\n  # two\n\n  - G\nwhere (p < 2\n)\n  and X[p] > 0\n  or p == 3",
        ranks="p: 4", inputs="X: [p]", outputs="Z",
    )  # fmt: skip
    assert format_einsums(cascade) == "G    = X[p] * X[p]\nZ[p] = X[p] - G where p < 2 and X[p] > 0 or p == 3"


def test_a_scalar_is_defined_with_or_without_brackets():
    bare, bracketed = (
        cascade_of(f"{left} = sum[p](X[p])\nZ[p] = X[p] / G", ranks="p: 4", inputs="X: [p]", outputs="Z")
        for left in ("G", "G[]")
    )
    assert bare == bracketed
    assert format_einsums(bare).startswith("G    = sum[p]")


def test_chained_comparisons():
    chained = cascade_of("Z[p] = X[p] where 0 < p <= 2", ranks="p: 4", inputs="X: [p]", outputs="Z")
    spelt = cascade_of("Z[p] = X[p] where 0 < p and p <= 2", ranks="p: 4", inputs="X: [p]", outputs="Z")
    assert chained.einsums == spelt.einsums


def test_numbers_with_suffixes():
    cascade = cascade_of("Z[p] = X[p] * 2K", ranks="p: 16K", inputs="X: [p]", outputs="Z")
    assert extents_of(cascade) == {"p": 16384}
    assert cascade.einsums[0].body.args[1] == Number(2048)


def test_batch_ranks_and_splits_are_written_out():
    cascade = cascade_of(
        "Z[m1, p] = sum[m0](X[m1, m0, p])",
        ranks="b: 2, p: 3, m: 5, m0: 2, m1: ceil(m / m0)",
        inputs="X: [m, p]",
        outputs="Z",
        extra="batch: [b]\nsplit: {m: [m1, m0]}",
    )
    (einsum,) = cascade.explicit
    assert einsum.target.indices == tuple(map(RankValue, ("b", "m1", "p")))
    joined = Apply("+", (Apply("*", (RankValue("m1"), Extent("m0"))), RankValue("m0")))
    assert einsum.body.indices == (RankValue("b"), joined, RankValue("p"))
    assert iteration_ranks(einsum) == ("b", "m1", "p", "m0")
    assert cascade.full_ranks("Z") == ("b", "m1", "p")


NESTED = {"ranks": "m: 11, z: 2, c: ceil(m / z), c0: 4, c1: ceil(c / c0), e: 3, n: 11, n0: 4, n1: 3, s: 2, q: 5"}
SPLITS = "split: {m: [z, c], c: [c1, c0], n: [n1, n0]}"


@pytest.mark.parametrize(
    ("held", "given", "explicit", "where"),
    [
        ("e, m", "e, m", "e, m", None),
        ("e, m", "e, z, c", "e, z * C + c", None),
        ("e, m", "e, z, c1, c0", "e, z * C + (c1 * C0 + c0)", "c1 * C0 + c0 < C"),  # else the next chunk follows
        ("e, z, c", "e, z, c1, c0", "e, z, c1 * C0 + c0", None),  # absent where it is no coordinate of c
        ("e, z, c", "e, m", "e, m // C, m % C", None),
        ("e, z, c1, c0", "e, m", "e, m // C, m % C // C0, m % C % C0", None),
        ("e, z, c1, c0", "e, z, c", "e, z, c // C0, c % C0", None),
        ("z, c, n1, n0", "m, n", "m // C, m % C, n // N0, n % N0", None),
        ("n1, n0, z, c", "n, z, c", "n // N0, n % N0, z, c", None),
        ("m, n1, n0", "z, c, n", "z * C + c, n // N0, n % N0", None),  # as many indices as ranks
        ("z, c", "M - 1 - m", "(M - 1 - m) // C, (M - 1 - m) % C", "M - 1 - m < M"),  # beyond it there is padding
        ("z, c", "z * C + q", "(z * C + q) // C, (z * C + q) % C", "z * C + q < M"),
        ("e, m", "e, 1, c", "e, 1 * C + c", None),
        ("e, m", "e, z, c - 1", "e, z * C + (c - 1)", "c - 1 >= 0 and c - 1 < C"),  # not the last of the chunk before
        ("e, m", "e, IDX[s], c", "e, IDX[s] * C + c", None),
        ("e, m", "e, n1, n0", "e, n1 * N0 + n0", "n1 * N0 + n0 < N"),  # the parts of a rank read in its place
    ],
)
def test_indices_by_ranks_and_by_parts(held, given, explicit, where):
    gathered = "IDX" in given
    cascade = cascade_of(
        f"Y = X[{given}]", inputs=f"X: [{held}]{', IDX: [s]' if gathered else ''}", outputs="Y", extra=SPLITS, **NESTED
    )
    (einsum,) = cascade.explicit
    assert format_expr(einsum.body) == f"X[{explicit}]"
    assert (einsum.where and format_expr(einsum.where)) == where
    if gathered:
        assert cascade.tensors["IDX"].selects == "z"


def test_what_fills_a_gap_between_parts_is_not_left_out():
    cascade = cascade_of("Y[z, c] = coalesce(X[z, c - 1], 0)", inputs="X: [m]", outputs="Y", extra=SPLITS, **NESTED)
    (einsum,) = cascade.explicit
    assert einsum.where is None
    inside = "select(c - 1 >= 0 and c - 1 < C, z * C + (c - 1), -1)"
    assert format_expr(einsum.body) == f"coalesce(X[{inside}], 0)"


@pytest.mark.parametrize(
    ("declared", "left", "held"),
    [
        ("e, m", "e, z, c", "e, z, c"),
        ("e, m", "e, z, c1, c0", "e, z, c1, c0"),
        ("e, z, c", "e, m", "e, m"),
        ("e, z, c1, c0", "e, z, c", "e, z, c"),
        ("e, m", "e, IDX[c1], c", "e, m"),  # a scatter over what is declared
    ],
)
def test_an_output_may_be_declared_by_other_ranks_than_it_is_written_by(declared, left, held):
    text = text_of(
        f"O[{left}] = X[e] + 0 * IDX[0] + {left.replace('e, ', '').replace(', ', ' + ')}", inputs="X: [e], IDX: [c1]",
        outputs="O", extra=SPLITS, **NESTED,
    ).replace("outputs: [O]", f"outputs: {{O: [{declared}]}}")  # fmt: skip
    cascade = parse_cascade(text)
    assert cascade.full_ranks("O") == tuple(held.split(", "))
    assert cascade.declared_ranks("O") == tuple(declared.split(", "))
    assert f"outputs: {{O: [{declared}]}}" in format_cascade(cascade)
    assert parse_cascade(format_cascade(cascade)) == cascade


def test_a_batch_rank_that_a_tensor_declares_is_not_summed():
    cascade = cascade_of("Z[p] = X[p, b]", ranks="b: 2, p: 3", inputs="X: [p, b]", outputs="Z", extra="batch: [b]")
    assert cascade.explicit[0].reduction.ranks == ()


PARAMETERS = """
name: projected
ranks: {b: 3, h: 2, d: 4, e: 5, p: 6}
batch: [b, h]
inputs: {X: [d, p], AL: [h]}
parameters: {W: [h, d, e], G: [e]}
outputs: [Z]
einsums: |
  GW[h, d, e] = exp(G[e]) * W[h, d, e]
  Y[e, p]     = GW[h, d, e] * X[d, p]
  Z[e, p]     = Y[e, p] * AL[h] + G[e]
"""
WRITTEN_OUT = """
name: projected
ranks: {b: 3, h: 2, d: 4, e: 5, p: 6}
inputs: {X: [b, h, d, p], AL: [b, h], W: [h, d, e], G: [e]}
outputs: [Z]
einsums: |
  GW[h, d, e]   = exp(G[e]) * W[h, d, e]
  Y[b, h, e, p] = sum[d](GW[h, d, e] * X[b, h, d, p])
  Z[b, h, e, p] = Y[b, h, e, p] * AL[b, h] + G[e]
"""


def test_parameters_are_the_same_for_the_whole_batch():
    """As is what is computed from them alone; an input that names a batch rank carries the others all the same."""
    cascade, written_out = parse_cascade(PARAMETERS), parse_cascade(WRITTEN_OUT)
    assert {t: cascade.full_ranks(t) for t in cascade.tensors} == {
        t: written_out.full_ranks(t) for t in written_out.tensors
    }
    assert cascade.explicit == written_out.explicit
    again = parse_cascade(format_cascade(cascade))
    assert again == cascade
    assert again.parameters == {"W", "G"}


def test_a_parameter_that_is_an_input_is_refused():
    text = PARAMETERS.replace("{X: [d, p], AL: [h]}", "{X: [d, p], W: [h, d, e], AL: [h]}")
    with pytest.raises(InputError, match="'W' is an input and a parameter"):
        parse_cascade(text)


def test_an_input_that_scatters_holds_coordinates():
    cascade = cascade_of(
        "Z[IDX[c], f] = Y[c, f]\nO[n, f] = Z[n, f]", ranks="c: 3, f: 2, n: 4", inputs="IDX: [c], Y: [c, f]", outputs="O"
    )
    assert cascade.tensors["IDX"].selects == "n"
    assert cascade.tensors["Z"].ranks == ("n", "f")


def test_an_index_of_an_index():
    cascade = cascade_of(
        "Z[s] = X[FAR[NEAR[s] + 1]]", ranks="s: 3, q: 4, p: 5", inputs="NEAR: [s], FAR: [q], X: [p]", outputs="Z"
    )
    assert {n: t.selects for n, t in cascade.tensors.items()} == {"NEAR": "q", "FAR": "p", "X": None, "Z": None}


# Extents


def test_extents_follow_what_is_set():
    cascade = load_cascade("attention-1pass")
    sizes = extents_of(cascade, {"m": 1000, "m0": 64})
    assert (sizes["m"], sizes["m1"], sizes["p"]) == (1000, 16, 1024)


@pytest.mark.parametrize(
    ("expression", "value"),
    [("q * 2 + 1", 7), ("7 // 2", 3), ("ceil(7 / 2)", 4), ("sqrt(q * 3)", 3), ("pow(2, q)", 8), ("min(q, 9)", 3),
     ("10 % 7", 3), ("max(q, 2) - 2", 1), ("exp2(3)", 8), ("floor(7.5)", 7),
     ("round(6.5)", 6), ("round(7.5)", 8), ("select(q > 2, 5, 6)", 5)],
)  # fmt: skip
def test_extents_are_expressions(expression, value):
    cascade = cascade_of("Z[p] = X[p, q]", ranks=f'q: 3, p: "{expression}"', inputs="X: [p, q]", outputs="Z")
    assert extents_of(cascade)["p"] == value


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"m": 0}, r"the extent of rank 'm' is 0; expected at least 1"),
        ({"m": -3}, r"is -3"),
        ({"m": 8, "m0": 0}, r"the extent of rank 'm0' is 0; expected at least 1"),
        ({"m": 2**41}, r"at most 2\^40"),
        ({"mm": 3}, r"unknown rank 'mm'.*did you mean 'm'"),
        ({"m": 100, "m0": 30, "m1": 3}, r"rank 'm' has 100 elements, but m1 x m0 = 3 x 30 = 90"),
    ],
)
def test_extents_that_cannot_be(overrides, message):
    with pytest.raises(InputError, match=message):
        extents_of(load_cascade("attention-1pass"), overrides)


# Order of evaluation


def test_equations_are_computed_after_what_they_read_whatever_their_order():
    cascade = cascade_of("Z[p] = Y[p]\nY[p] = W[p]\nW[p] = X[p]", ranks="p: 2", inputs="X: [p]", outputs="Z")
    assert plan(cascade) == (Compute(2), Compute(1), Compute(0))


def test_only_what_must_be_stepped_is_stepped():
    cascade = load_cascade("attention-1pass")
    loops = [item for item in plan(cascade) if isinstance(item, Loop)]
    assert [(i.rank, [cascade.einsums[n].name for n in equations(i)]) for i in loops] == [
        ("m1", ["RM"]), ("m1", ["SPD", "RD"]), ("m1", ["SPNV", "RNV"])
    ]  # fmt: skip


def test_loops_nest():
    cascade = cascade_of(
        "R[0] = 1\nS[i, 0] = R[i]\nS[i, j+1] = S[i, j] + X[i, j]\nR[i+1] = S[i, J]",
        ranks="i: 3, j: 4",
        inputs="X: [i, j]",
        outputs="R",
    )
    assert plan(cascade) == (Compute(0), Loop("i", (Compute(1), Loop("j", (Compute(2),)), Compute(3))))


@pytest.mark.parametrize(
    "step",
    [
        "S[i+1] = S[i] + X[i]",
        "S[i+1] = coalesce(S[i - 1], 0) + X[i]",
        "S[i+1] = S[0] + S[i] + X[i]",
        "S[i+1] = sum[j](S[j] * X[i]) where j < i",
        "S[i+1] = sum[j](S[j] * X[i]) where i >= j",
        "S[i+1] = sum[j](S[j+1] * X[i]) where j < i and X[i] > 0",
        "S[i+1] = sum[j](S[i - j] * X[i])",
        "S[i+1] = sum[j](S[i + j - J + 1] * X[i])",
    ],
)
def test_what_an_earlier_step_made_may_be_read(step):
    cascade = cascade_of(f"S[0] = 1\n{step}", ranks="i: 4, j: 4", inputs="X: [i]", outputs="S")
    assert plan(cascade) == (Compute(0), Loop("i", (Compute(1),)))


@pytest.mark.parametrize(
    "step",
    [
        "S[i+1] = S[i+1] + X[i]",
        "S[i+1] = S[I] + X[i]",
        "S[i+1] = sum[j](S[j] * X[i])",
        "S[i+1] = sum[j](S[j+1] * X[i]) where j <= i",
        "S[i+1] = sum[j](S[j] * X[i]) where j < i or X[i] > 0",
        "S[i+1] = sum[j](S[i + j] * X[i])",
        "S[i+1] = S[2*i] + X[i]",
    ],
)
def test_what_a_later_step_makes_may_not_be_read(step):
    text = text_of(f"S[0] = 1\n{step}", ranks="i: 4, j: 4", inputs="X: [i]", outputs="S")
    with pytest.raises(InputError, match="cyclic definition: S -> S"):
        parse_cascade(text)
