"""Running, comparing with references, random inputs, test extents, and operators from Python."""

import math
from pathlib import Path

import numpy as np
import pytest
from references.attention import attention
from references.build import cascade_of

from fusemodel.cascade import extents_of, load_cascade, parse_cascade
from fusemodel.cascade.operators import OPERATORS
from fusemodel.errors import InputError
from fusemodel.library import names
from fusemodel.numerics import compare, random_inputs, register, register_reference, run, test_extents
from fusemodel.numerics.compare import error_of

SMALL = {"ranks": "p: 4, m: 3", "inputs": "X: [p]", "outputs": "Z"}

# Running


@pytest.mark.parametrize("name", sorted(names("cascades")))
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-4)])
def test_library_cascades_agree_with_their_references(name, dtype, tolerance):
    found = compare(load_cascade(name), dtype=dtype)
    assert found.cascade == name
    if found.has_reference:
        assert found.max_rel_error <= tolerance
        assert found.max_abs_error is not None


def test_a_result_has_every_tensor_and_the_points():
    cascade = load_cascade("attention-3pass")
    sizes = {"b": 2, "h": 1, "p": 3, "m": 4, "e": 5, "f": 6}
    result = run(cascade, extents=sizes)
    assert list(result.outputs) == ["AV"]
    assert result["AV"].shape == (2, 1, 6, 3)
    assert result.tensors["QK"].shape == (2, 1, 4, 3)
    assert result.extents == sizes
    assert result.points == 2 * (3 * 4 * 5 + 4 * (3 * 4) + 3 * 4 * 6)
    assert result.present == {}


def test_extents_follow_the_shapes_of_inputs():
    cascade = load_cascade("attention-1pass")
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(1, 2, 3, 5)), rng.normal(size=(1, 2, 3, 21)), rng.normal(size=(1, 2, 4, 21))
    result = run(cascade, {"Q": q, "K": k, "V": v})
    assert (result.extents["m"], result.extents["m0"], result.extents["m1"]) == (21, 16, 2)
    np.testing.assert_allclose(result["AV"], attention(q, k, v), rtol=1e-12)


def test_runs_repeat_and_seeds_differ():
    cascade = load_cascade("attention-3pass")
    first, again, other = run(cascade)["AV"], run(cascade)["AV"], run(cascade, seed=1)["AV"]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_inputs_are_not_changed_nor_shared():
    cascade = cascade_of("Z[p] = X[p]", **SMALL)
    x = np.ones(4)
    result = run(cascade, {"X": x})
    result["Z"][:] = 5
    assert (x == 1).all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"no array is given for input 'X'"),
        ({"X": np.zeros(4), "Y": np.zeros(4)}, r"unknown input 'Y'; expected one of X"),
        ({"X": np.zeros((4, 2))}, r"input 'X' has the shape \(4, 2\); expected \[p\] = \(4,\)"),
        ({"X": np.zeros(())}, r"input 'X' has the shape \(\)"),
        ({"X": ["a", "b", "c", "d"]}, r"input 'X' holds <U1; expected numbers"),
        ({"X": np.zeros(4, complex)}, r"expected numbers"),
        ({"X": [[1, 2], [3]]}, r"input 'X' is no array"),
    ],
)
def test_inputs_that_do_not_fit(inputs, message):
    cascade = cascade_of("Z[p] = X[p]", **SMALL)
    with pytest.raises(InputError, match=message):
        run(cascade, inputs, {"p": 4})


def test_a_dtype_that_is_no_floating_type():
    with pytest.raises(InputError, match=r"unknown dtype 'float46'.*did you mean 'float64'"):
        run(cascade_of("Z[p] = X[p]", **SMALL), dtype="float46")


def test_lists_and_integers_are_inputs_too():
    cascade = cascade_of("Z[p] = X[p] / 2", **SMALL)
    assert run(cascade, {"X": [1, 2, 3, 4]})["Z"].tolist() == [0.5, 1, 1.5, 2]
    assert run(cascade, {"X": [True, False]})["Z"].tolist() == [0.5, 0]


# Random inputs


def test_random_inputs_suit_their_use():
    cascade = cascade_of(
        "Z[s] = X[IDX[s]] * Y[s] where KEEP[s] and not DROP[s]",
        ranks="s: 500, p: 7",
        inputs="IDX: [s], X: [p], Y: [s], KEEP: [s], DROP: [s]",
        outputs="Z",
    )
    arrays = random_inputs(cascade, extents_of(cascade), seed=3)
    assert set(np.unique(arrays["IDX"])) == set(range(7))
    assert arrays["KEEP"].dtype == arrays["DROP"].dtype == bool
    assert 0.6 < arrays["KEEP"].mean() < 0.8
    assert abs(arrays["Y"].mean()) < 0.2
    assert 0.8 < arrays["Y"].std() < 1.2
    single = random_inputs(cascade, extents_of(cascade), seed=3, dtype="float32")
    np.testing.assert_array_equal(single["Y"], arrays["Y"].astype(np.float32))


# Extents for a test


def test_test_extents_are_those_of_the_file():
    sizes = test_extents(load_cascade("attention-1pass"))
    assert sizes == {"b": 2, "h": 3, "p": 37, "m": 53, "e": 8, "f": 5, "m0": 16, "m1": 4}
    assert test_extents(load_cascade("attention-1pass"), {"m": 100})["m1"] == 7


def test_test_extents_shrink_a_file_without():
    cascade = cascade_of(
        "Z[p, m1] = sum[m0](X[p, m1, m0])",
        ranks="b: 64, p: 1M, m: 1024, m0: 256, m1: m / m0",
        inputs="X: [p, m]",
        outputs="Z",
        extra="batch: [b]\nsplit: {m: [m1, m0]}",
    )
    sizes = test_extents(cascade)
    assert sizes == {"b": 2, "p": 512, "m": 512, "m0": 128, "m1": 4}
    sizes = test_extents(cascade, {"m": 100})
    assert (sizes["m"], sizes["m0"] * sizes["m1"]) == (100, 100)
    assert test_extents(cascade, {"p": 1})["p"] == 1


def test_test_extents_keep_constant_indices_in_range():
    cascade = cascade_of("Z[p] = X[p, 300]", ranks="p: 1G, m: 2K", inputs="X: [p, m]", outputs="Z")
    assert test_extents(cascade)["m"] > 300


def test_test_extents_that_cannot_be():
    cascade = load_cascade("attention-1pass")
    with pytest.raises(InputError, match=r"unknown rank 'z'"):
        test_extents(cascade, {"z": 1})
    with pytest.raises(InputError, match=r"is 0; expected at least 1"):
        test_extents(cascade, {"m": 0})


# Comparing


def test_a_comparison_without_a_reference_still_executes():
    found = compare(cascade_of("Z[p] = X[p]", **SMALL))
    assert (found.max_abs_error, found.max_rel_error, found.has_reference) == (None, None, False)
    assert found.points == 4


def test_a_wrong_cascade_is_found_out():
    text = Path(load_cascade("attention-3pass").file).read_text()
    wrong = parse_cascade(text.replace("GM[p]    = max[m]", "GM[p]    = min[m]").replace("/ SD[p]", "/ (SD[p] + 0.01)"))
    assert compare(wrong).max_rel_error > 1e-12
    lost = parse_cascade(text.replace("= A[m, p] * V[f, m]", "= A[m, p] * V[f, m] where p > 0"))
    assert compare(lost).max_abs_error == math.inf


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 4.0], (2.0, 0.5)),
        ([np.nan, 1.0], [1.0, 1.0], (math.inf, math.inf)),
        ([1.0, 1.0], [np.nan, 1.0], (math.inf, math.inf)),
        ([np.nan, 1.0], [np.nan, 1.0], (0, 0)),
        ([np.inf, 1.0], [np.inf, 1.0], (0, 0)),
        ([-np.inf, 1.0], [np.inf, 1.0], (math.inf, math.inf)),
        ([1.0, 1.0], [np.inf, 1.0], (math.inf, math.inf)),
        ([0.0, 0.0], [0.0, 0.0], (0, 0)),
        ([0.5, 0.0], [0.0, 0.0], (0.5, math.inf)),
        ([[1.0]], [1.0], (math.inf, math.inf)),
    ],
)
def test_errors_never_hide_what_is_not_a_number(found, expected, error):
    assert error_of(np.array(found), np.array(expected)) == error


def test_an_unknown_reference_names_the_nearest():
    cascade = cascade_of("Z[p] = X[p]", **SMALL, extra="reference: softmax_atention")
    with pytest.raises(InputError, match=r"unknown reference 'softmax_atention'.*did you mean 'softmax_attention'"):
        compare(cascade)


def test_a_reference_that_does_not_fit():
    cascade = cascade_of("Z[p] = X[p]", **SMALL, extra="reference: softmax_attention")
    with pytest.raises(InputError, match=r"unknown input of the reference 'Q'"):
        compare(cascade)


def test_a_reference_from_python():
    def double(problem):
        return {"Z": 2 * problem.input("X").values}

    register_reference("double", double)
    cascade = cascade_of("Z[p] = X[p] + X[p]", **SMALL, extra="reference: double")
    assert compare(cascade).max_abs_error == 0
    assert compare(cascade, inputs={"X": np.array([1.0, 2.0])}).points == 2


@pytest.mark.parametrize("dims", ["Q: [e, p], K: [e, m], V: [f, m]", "Q: [p, e], K: [m, e], V: [m, f]"])
@pytest.mark.parametrize("out", ["f, p", "p, f"])
def test_references_do_not_depend_on_the_order_of_ranks(dims, out):
    access = {t.split(":")[0].strip(): t.split(":")[1].strip() for t in dims.split("], ")}
    access = {n: a if a.endswith("]") else a + "]" for n, a in access.items()}
    cascade = cascade_of(
        f"""
        QK[m, p] = Q{access["Q"]} * K{access["K"]}
        GM[p]    = max[m](QK[m, p])
        SN[m, p] = exp(QK[m, p] - GM[p])
        SD[p]    = sum[m](SN[m, p])
        AV[{out}] = sum[m](SN[m, p] * V{access["V"]} / SD[p])
        """,
        ranks="b: 2, p: 3, m: 4, e: 5, f: 2",
        inputs=dims,
        outputs="AV",
        extra="batch: [b]\nreference: softmax_attention",
    )
    assert compare(cascade).max_rel_error < 1e-12


def test_the_causal_scaled_reference():
    cascade = cascade_of(
        """
        QK[m, p] = Q[e, p] * K[e, m] / sqrt(E) where m <= p
        GM[p]    = max[m](QK[m, p])
        SN[m, p] = exp(QK[m, p] - GM[p])
        SD[p]    = sum[m](SN[m, p])
        AV[f, p] = sum[m](SN[m, p] * V[f, m] / SD[p])
        """,
        ranks="p: 5, m: 5, e: 3, f: 2",
        inputs="Q: [e, p], K: [e, m], V: [f, m]",
        outputs="AV",
        extra="reference: scaled_causal_softmax_attention",
    )
    assert compare(cascade).max_rel_error < 1e-12


@pytest.mark.parametrize("equation", ["Z[n, s] = X[n, d] * W[d, s]", "Z[s, n] = W[d, s] * X[n, d]"])
def test_the_matrix_product_reference(equation):
    cascade = cascade_of(
        equation,
        ranks="b: 2, n: 3, d: 4, s: 5",
        inputs="X: [n, d], W: [d, s]",
        outputs="Z",
        extra="reference: matrix_product\nbatch: [b]",
    )
    assert compare(cascade).max_rel_error < 1e-12


# Operators from Python


@pytest.fixture
def scratch_operators():
    from fusemodel.numerics import operators

    before = dict(OPERATORS), dict(operators._REAL), dict(operators._ANY)
    yield
    for table, kept in zip((OPERATORS, operators._REAL, operators._ANY), before, strict=True):
        table.clear()
        table.update(kept)


@pytest.mark.usefixtures("scratch_operators")
def test_a_registered_operator_is_part_of_the_language():
    register("hardswish", lambda x: x * np.clip(x / 6 + 0.5, 0, 1), cost="mac")
    cascade = cascade_of("Z[p] = hardswish(X[p] + p)", **SMALL)
    x = np.array([-4.0, 0, 1, 9])
    found = run(cascade, {"X": x}, dtype="float32")["Z"]
    y = x + np.arange(4)
    np.testing.assert_allclose(found, y * np.clip(y / 6 + 0.5, 0, 1), rtol=1e-6)
    assert found.dtype == np.float32
    assert OPERATORS["hardswish"].cost == "mac"


@pytest.mark.usefixtures("scratch_operators")
def test_a_registered_operator_may_take_several_operands():
    register("lerp", lambda a, b, t: a + (b - a) * t, arity=3)
    cascade = cascade_of("Z[p] = lerp(X[p], X[p - 1], 0.5)", **SMALL)
    result = run(cascade, {"X": np.array([1.0, 3, 5, 7])})
    assert result["Z"][1:].tolist() == [2, 4, 6]
    assert result.present["Z"].tolist() == [False, True, True, True]
    with pytest.raises(InputError, match="operator 'lerp' has 2 operands; expected 3"):
        cascade_of("Z[p] = lerp(X[p], 1)", **SMALL)


@pytest.mark.usefixtures("scratch_operators")
def test_a_registered_operator_of_the_wrong_shape():
    register("total", lambda x: x.sum())
    with pytest.raises(InputError, match=r"<text>:6:10: operator 'total' made an array of shape \(\); expected"):
        run(cascade_of("Z[p] = total(X[p])", **SMALL))


@pytest.mark.parametrize("name", ["+", "and", "coalesce", "two words", "ceil", ""])
def test_names_of_the_language_cannot_be_registered(name):
    with pytest.raises(InputError, match="cannot name an operator"):
        register(name, np.abs)
    with pytest.raises(InputError, match="cannot be called"):
        register("fine", None)
