"""Every construct of the language against plain Python loops."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from references.build import cascade_of, text_of
from strategies import split_texts

from fusemodel.cascade import extents_of, parse_cascade
from fusemodel.errors import InputError
from fusemodel.numerics import compare, random_inputs, run


def executed(equations, *, ranks, inputs, outputs, extra="", arrays=None, seed=0, dtype="float64"):
    """The result of a small cascade, and its inputs."""
    cascade = cascade_of(equations, ranks=ranks, inputs=inputs, outputs=outputs, extra=extra)
    given = random_inputs(cascade, extents_of(cascade), seed=seed, dtype=dtype) | (arrays or {})
    return run(cascade, given, extents_of(cascade), dtype=dtype), given


def close(found, expected, **tolerance):
    np.testing.assert_allclose(found, expected, **({"rtol": 1e-12, "atol": 1e-13} | tolerance))


# Iterative ranks


def test_cumulative_sum():
    result, given = executed(
        "S[0] = 0\nS[i+1] = S[i] + X[i]\nZ[i] = S[i+1] - S[i]", ranks="i: 7", inputs="X: [i]", outputs="S, Z"
    )
    close(result["S"], [sum(given["X"][:n]) for n in range(8)])
    close(result["Z"], given["X"])


def test_an_end_value_and_a_start_from_a_tensor():
    result, given = executed(
        "S[0, e] = Y[e]\nS[i+1, e] = max(S[i, e], X[i, e])\nZ[e] = S[I, e]",
        ranks="i: 5, e: 3",
        inputs="X: [i, e], Y: [e]",
        outputs="Z",
    )
    close(result["Z"], np.maximum(given["X"].max(axis=0), given["Y"]))


def test_recurrent_network():
    result, given = executed(
        "S[0, e] = Y[e]\nS[i+1, e] = W[e, g] * S[i, g]",
        ranks="i: 5, e: 3, g: e",
        inputs="W: [e, g], Y: [e]",
        outputs="S",
    )
    state = given["Y"]
    for i in range(5):
        state = given["W"] @ state
        close(result["S"][i + 1], state)


def test_delta_rule():
    result, given = executed(
        """
        S[0, e, f]   = 0
        W[t, f]      = S[t, e, f] * K[e, t]
        D[t, f]      = BETA[t] * (V[f, t] - W[t, f])
        S[t+1, e, f] = S[t, e, f] + K[e, t] * D[t, f]
        O[t, f]      = Q[e, t] * S[t+1, e, f]
        """,
        ranks="b: 2, t: 6, e: 3, f: 4",
        extra="batch: [b]",
        outputs="O",
        inputs="Q: [e, t], K: [e, t], V: [f, t], BETA: [t]",
    )
    for b in range(2):
        state = np.zeros((3, 4))
        for t in range(6):
            key = given["K"][b, :, t]
            change = given["BETA"][b, t] * (given["V"][b, :, t] - state.T @ key)
            state = state + np.outer(key, change)
            close(result["O"][b, t], state.T @ given["Q"][b, :, t])


def test_linear_attention_in_chunks():
    """A state of finished chunks, and causal scores inside a chunk; the last chunk is ragged."""
    result, given = executed(
        """
        KV[c1, e, f]   = K[e, c1, c0] * V[f, c1, c0]
        S[0, e, f]     = 0
        S[c1+1, e, f]  = S[c1, e, f] + KV[c1, e, f]
        INTER[f, t]    = Q[e, t] * S[t // C0, e, f]
        A[t, c0]       = Q[e, t] * K[e, t // C0 * C0 + c0] where t // C0 * C0 + c0 <= t
        INTRA[f, t]    = sum[c0](A[t, c0] * V[f, t // C0 * C0 + c0])
        O[f, t]        = INTER[f, t] + INTRA[f, t]
        """,
        ranks="t: 7, c: t, c0: 3, c1: ceil(c / c0), e: 2, f: 2",
        extra="split: {c: [c1, c0]}",
        outputs="O",
        inputs="Q: [e, t], K: [e, c], V: [f, c]",
    )
    scores = np.tril(given["Q"].T @ given["K"])
    close(result["O"], (scores @ given["V"].T).T)


def solved(given):
    """Forward substitution, row by row."""
    rows = len(given["R"])
    x = [0.0] * rows
    for i in range(rows):
        x[i] = (given["R"][i] - sum(given["L"][i, j] * x[j] for j in range(i))) / given["L"][i, i]
    return x


def test_forward_substitution_by_columns():
    result, given = executed(
        "R1[0, j] = R[j]\nX[i] = R1[i, i] / L[i, i]\nR1[i+1, j] = R1[i, j] - L[j, i] * X[i]",
        ranks="i: 6, j: i",
        inputs="R: [j], L: [j, i]",
        outputs="X",
    )
    close(result["X"], solved(given), rtol=1e-9)


def test_forward_substitution_reads_a_prefix():
    result, given = executed(
        "S[i] = sum[j](L[i, j] * X[j+1]) where j < i\nX[0] = 0\nX[i+1] = (R[i] - S[i]) / L[i, i]",
        ranks="i: 6, j: i",
        inputs="R: [i], L: [i, j]",
        outputs="X",
    )
    close(result["X"][1:], solved(given), rtol=1e-9)


def test_a_recurrence_with_several_lags():
    result, given = executed(
        "S[0] = 1\nS[i+1] = coalesce(X[i] * S[i], 0) + coalesce(S[i - 1], 0) + 0 * X[i]",
        ranks="i: 6",
        inputs="X: [i]",
        outputs="S",
    )
    s = [1.0]
    for i in range(6):
        s.append(given["X"][i] * s[i] + (s[i - 1] if i else 0.0))
    close(result["S"], s)


def test_nested_iterative_ranks():
    """An inner loop of its own for each step of an outer one."""
    result, given = executed(
        """
        R[0, p]      = 1
        S[i, 0, p]   = R[i, p]
        S[i, j+1, p] = S[i, j, p] * 0.5 + X[i, j, p]
        R[i+1, p]    = tanh(S[i, J, p])
        """,
        ranks="i: 3, j: 4, p: 2",
        inputs="X: [i, j, p]",
        outputs="R, S",
    )
    state = np.ones(2)
    for i in range(3):
        for j in range(4):
            state = state * 0.5 + given["X"][i, j]
        state = np.tanh(state)
        close(result["R"][i + 1], state)


def test_two_iterative_ranks_at_once():
    """Edit distance: a table filled in lexicographic order, its first row and column given."""
    result, given = executed(
        """
        T[0, j]     = j
        T[i, 0]     = i
        T[i+1, j+1] = min(T[i, j] + COST[i, j], T[i, j+1] + 1, T[i+1, j] + 1)
        Z[]         = T[I, J]
        """,
        ranks="i: 5, j: 4",
        inputs="COST: [i, j]",
        outputs="Z, T",
        arrays={"COST": np.ones((5, 4))},
    )
    table = np.zeros((6, 5))
    table[0, :], table[:, 0] = range(5), range(6)
    for i in range(5):
        for j in range(4):
            table[i + 1, j + 1] = min(table[i, j], table[i, j + 1], table[i + 1, j]) + 1
    np.testing.assert_array_equal(result["T"], table)
    assert given["COST"].shape == (5, 4)


def test_a_corner_that_no_start_makes_is_absent():
    result, _ = executed(
        "T[0, 0] = 1\nT[i+1, j+1] = coalesce(T[i, j], 7) + 0 * X[i, j]",
        ranks="i: 3, j: 2",
        inputs="X: [i, j]",
        outputs="T",
    )
    np.testing.assert_array_equal(result.present["T"][0], [True, False, False])
    np.testing.assert_array_equal(result["T"][1:, 1:], [[1, 7], [7, 1], [7, 7]])


def test_a_tensor_of_a_loop_may_turn_from_whole_to_infinite():
    result, _ = executed(
        "H[i] = max[m](m) where m < i and S[i] > -1\nS[0] = 0\nS[i+1] = max(S[i], H[i]) + X[i]",
        ranks="i: 4, m: i",
        inputs="X: [i]",
        outputs="S, H",
        arrays={"X": np.zeros(4)},
    )
    assert result["H"].tolist() == [-np.inf, 0, 1, 2]
    assert result["S"].tolist() == [0, 0, 0, 1, 2]


# Indices


def test_gather_of_computed_coordinates():
    result, given = executed(
        "Z[e, s, p] = K[e, IDX[s, p] + 1]\nY[e, s] = K[e, (s * 3) % M]",
        ranks="m: 5, e: 2, s: 3, p: 2",
        inputs="K: [e, m], IDX: [s, p]",
        outputs="Z, Y",
        arrays={"IDX": np.array([[0, 1], [2, 3], [3, 4]])},
    )
    for s in range(3):
        for p in range(2):
            m = given["IDX"][s, p] + 1
            if m < 5:
                np.testing.assert_array_equal(result["Z"][:, s, p], given["K"][:, m])
            else:
                assert np.isnan(result["Z"][:, s, p]).all()
    np.testing.assert_array_equal(result["Y"], given["K"][:, [0, 3, 1]])


def test_a_diagonal_and_an_outer_product():
    result, given = executed(
        "D[p] = X[p, p]\nZ[p, q] = X[p, 0] * X[0, q]\nT[q] = X[q, P - 1 - q]",
        ranks="p: 3, q: p",
        inputs="X: [p, q]",
        outputs="D, Z, T",
    )
    x = given["X"]
    np.testing.assert_array_equal(result["D"], np.diag(x))
    np.testing.assert_array_equal(result["Z"], np.outer(x[:, 0], x[0]))
    np.testing.assert_array_equal(result["T"], np.diag(x[:, ::-1]))


def test_convolution_with_stride():
    result, given = executed(
        "Z[p] = sum[w](X[2*p + w] * F[w])", ranks="i: 8, p: 3, w: 3", inputs="X: [i], F: [w]", outputs="Z"
    )
    close(result["Z"], [sum(given["X"][2 * p + w] * given["F"][w] for w in range(3)) for p in range(3)])


def test_convolution_ignores_what_is_outside():
    result, given = executed(
        "Z[p] = sum[w](X[p + w - W // 2] * F[w])", ranks="p: 5, w: 3", inputs="X: [p], F: [w]", outputs="Z"
    )
    close(result["Z"], np.convolve(given["X"], given["F"][::-1], mode="same"))


def test_a_split_rank_read_whole_and_in_parts():
    result, given = executed(
        "T[m1, m0] = X[m1, m0]\nZ[m] = 2 * T[m]\nS[m1] = sum[m0](X[m1, m0])",
        ranks="m: 7, m0: 3, m1: ceil(m / m0)",
        inputs="X: [m]",
        outputs="Z, S",
        extra="split: {m: [m1, m0]}",
    )
    np.testing.assert_array_equal(result["Z"], 2 * given["X"])
    close(result["S"], [given["X"][:3].sum(), given["X"][3:6].sum(), given["X"][6]])


def joined(values, ranks, extents):
    """The axes of parts as one axis, padding cut off."""
    for parts, whole in ((("c1", "c0"), "c"), (("z", "c"), "m")):
        if parts[0] in ranks:
            d = ranks.index(parts[0])
            values = values.reshape(*values.shape[:d], -1, *values.shape[d + 2 :]).take(range(extents[whole]), axis=d)
            ranks = [*ranks[:d], whole, *ranks[d + 2 :]]
    return values


@settings(max_examples=150, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(split_texts())
def test_equations_may_run_over_a_rank_or_over_its_parts(texts):
    parts, whole = map(parse_cascade, texts)
    sizes = extents_of(parts)
    inputs = random_inputs(parts, sizes)
    by_parts, by_whole = run(parts, inputs, sizes), run(whole, inputs, sizes)
    for name in whole.outputs:
        close(joined(by_parts[name], list(parts.declared_ranks(name)), sizes), by_whole[name], rtol=1e-9)


NESTED = "m: 11, z: 2, c: ceil(m / z), c0: 4, c1: ceil(c / c0)"


@pytest.mark.parametrize("left", ["m", "z, c", "z, c1, c0"])
def test_an_output_has_the_ranks_it_is_declared_by(left):
    text = text_of(
        f"O[{left}] = 2 * X[{left}]", ranks=NESTED, inputs="X: [m]", outputs="O",
        extra="split: {m: [z, c], c: [c1, c0]}",
    )  # fmt: skip
    x, gap = np.arange(11.0), np.nan
    by_chunk = [[0, 2, 4, 6, 8, 10], [12, 14, 16, 18, 20, gap]]
    by_tile = [[[0, 2, 4, 6], [8, 10, gap, gap]], [[12, 14, 16, 18], [20, gap, gap, gap]]]
    for ranks, expected in (("m", 2 * x), ("z, c", by_chunk), ("z, c1, c0", by_tile)):
        result = run(parse_cascade(text.replace("[O]", f"{{O: [{ranks}]}}")), {"X": x})
        np.testing.assert_array_equal(result.outputs["O"], expected)
        np.testing.assert_array_equal(result["O"], expected)
        present = result.present.get("O", np.ones(np.shape(expected), bool))
        np.testing.assert_array_equal(present, ~np.isnan(expected))


def test_a_reference_gets_and_gives_what_is_declared():
    """Attention whose queries are computed tile by tile, and declared whole."""
    text = text_of(
        """
        QK[p1, p0, m] = Q[e, p1, p0] * K[e, m]
        SN[p1, p0, m] = exp(QK[p1, p0, m])
        SD[p1, p0]    = sum[m](SN[p1, p0, m])
        O[f, p1, p0]  = SN[p1, p0, m] * V[f, m] / SD[p1, p0]
        """,
        ranks="b: 2, p: 7, p0: 3, p1: ceil(p / p0), m: 5, e: 4, f: 2", inputs="Q: [e, p], K: [e, m], V: [f, m]",
        outputs="O", extra="batch: [b]\nreference: softmax_attention\nsplit: {p: [p1, p0]}",
    )  # fmt: skip
    whole = parse_cascade(text.replace("[O]", "{O: [f, p]}"))
    assert compare(whole).max_rel_error < 1e-12
    assert run(whole).outputs["O"].shape == (2, 2, 7)


def test_a_tensor_of_parts_is_read_by_affine_indices():
    result, given = executed(
        "U[i1, i0] = 2 * X[i1, i0]\nZ[i1, j] = U[i1 * I0 + j]\nY[i] = coalesce(U[i + 1], -1)\nW[i] = U[I - 1 - i]",
        ranks="i: 7, i0: 3, i1: ceil(i / i0), j: 5", inputs="X: [i]", outputs="Z, Y, W", extra="split: {i: [i1, i0]}",
    )  # fmt: skip
    x = 2 * given["X"]
    close(result["Y"], [*x[1:], -1])
    close(result["W"], x[::-1])
    close(result["Z"], [[x[3 * i + j] if 3 * i + j < 7 else np.nan for j in range(5)] for i in range(3)])


def test_padding_of_parts_is_not_what_lies_beyond_the_whole():
    """A tensor held by parts has elements in its padding; the whole ends before them."""
    result, given = executed(
        "U[i1, i0] = A[i1] * B[i0]\nZ[i] = U[i + 1]",
        ranks="i: 7, i0: 3, i1: ceil(i / i0)", inputs="A: [i1], B: [i0]", outputs="Z, U", extra="split: {i: [i1, i0]}",
    )  # fmt: skip
    assert result["U"].shape == (3, 3)
    close(result["Z"], [*np.outer(given["A"], given["B"]).ravel()[1:7], np.nan])


@pytest.mark.parametrize("held", ["i", "i1, i0"])
def test_the_neighbour_of_a_part_is_in_the_same_whole(held):
    """What an index means does not depend on how the tensor is held."""
    result, given = executed(
        f"U[{held}] = 2 * X[{held}]\nZ[i1, i0] = U[i1, i0 - 1]\nY[i1, i0] = coalesce(U[i1, i0 + 1], 0)",
        ranks="i: 6, i0: 3, i1: i / i0", inputs="X: [i]", outputs="Z, Y", extra="split: {i: [i1, i0]}",
    )  # fmt: skip
    x = 2 * given["X"].reshape(2, 3)
    close(result["Z"], np.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=np.nan))
    close(result["Y"], np.pad(x[:, 1:], ((0, 0), (0, 1))))


def test_a_gathered_neighbour_that_is_not_there_is_filled():
    index = np.array([3, 0, 2, 1, 3, 0])
    result, given = executed(
        "Z[i1, i0] = coalesce(X[IDX[i1, i0 - 1]], 7)\nY[i1, i0] = X[IDX[i1, i0 - 1]]",
        ranks="i: 6, i0: 3, i1: i / i0, n: 4", inputs="X: [n], IDX: [i]", outputs="Z, Y",
        extra="split: {i: [i1, i0]}", arrays={"IDX": index},
    )  # fmt: skip
    x = given["X"][index].reshape(2, 3)[:, :-1]
    close(result["Z"], np.pad(x, ((0, 0), (1, 0)), constant_values=7))
    close(result["Y"], np.pad(x, ((0, 0), (1, 0)), constant_values=np.nan))


def test_pages_behind_a_table():
    """Keys in pages: by coordinates taken apart, and by the parts of a split rank."""
    ranks = "m: 11, g: 4, w: ceil(m / g), q: 9, r: q * g, e: 2"
    table = np.array([7, 0, 3])
    result, given = executed(
        "Z[e, m] = K[PT[m // G], m % G, e]", ranks=ranks, inputs="K: [q, g, e], PT: [w]", outputs="Z",
        arrays={"PT": table},
    )  # fmt: skip
    expected = given["K"].reshape(36, 2)[[4 * table[m // 4] + m % 4 for m in range(11)]].T
    close(result["Z"], expected)
    result, given = executed(
        "Z[e, w, g] = K[e, PT[w], g]", ranks=ranks, inputs="K: [e, r], PT: [w]", outputs="Z",
        extra="split: {r: [q, g]}", arrays={"PT": table},
    )  # fmt: skip
    close(result["Z"], given["K"].reshape(2, 9, 4)[:, table])


# Scatters


def test_a_scatter_counts():
    index = np.array([0, 2, 2, 4, 0, 2])
    for body in ("sum[c](1)", "1"):
        result, _ = executed(
            f"Z[IDX[c]] = {body}\nO[n] = Z[n]",
            ranks="c: 6, n: 5",
            inputs="IDX: [c]",
            outputs="O",
            arrays={"IDX": index},
        )
        np.testing.assert_array_equal(result["O"], np.bincount(index, minlength=5))


def test_scatter_combines_collisions():
    index = np.array([[0, 2], [2, 2], [4, 0]])
    for op in ("sum", "max", "min", "prod", "mean"):
        result, given = executed(
            f"Z[IDX[c, r], f] = {op}[c, r](Y[c, r, f])\nO[n, f] = Z[n, f]",
            ranks="c: 3, r: 2, f: 2, n: 5", inputs="IDX: [c, r], Y: [c, r, f]", outputs="O", arrays={"IDX": index},
        )  # fmt: skip
        combine = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod, "mean": np.mean}[op]
        empty = {"sum": 0, "max": -np.inf, "min": np.inf, "prod": 1, "mean": 0}[op]
        for n in range(5):
            hits = given["Y"][index == n]
            close(result["O"][n], combine(hits, axis=0) if len(hits) else [empty] * 2)


def test_scatter_by_an_affine_index_drops_what_is_outside():
    """A transposed convolution."""
    result, given = executed(
        "Z[2*a + j - 1, f] = X[a, f] * W[j]\nO[n, f] = Z[n, f]",
        ranks="a: 3, j: 4, f: 2, n: 6",
        inputs="X: [a, f], W: [j]",
        outputs="O",
    )
    expected = np.zeros((6, 2))
    for a in range(3):
        for j in range(4):
            if 0 <= 2 * a + j - 1 < 6:
                expected[2 * a + j - 1] += given["X"][a] * given["W"][j]
    close(result["O"], expected)


def test_scatter_in_a_loop_writes_one_step():
    result, given = executed(
        "H[0, n] = 0\nH[i+1, IDX[i]] = X[i] + 0 * H[i, 0]\nZ[i, n] = H[i+1, n]",
        ranks="i: 3, n: 4",
        inputs="IDX: [i], X: [i]",
        outputs="Z",
        arrays={"IDX": np.array([2, 0, 2])},
    )
    expected = np.zeros((3, 4))
    expected[[0, 1, 2], [2, 0, 2]] = given["X"]
    close(result["Z"], expected)


# Selections


def test_selections_break_ties_by_the_lowest_coordinate():
    scores = np.array([1.0, 3.0, 3.0, 0.0, 3.0, 1.0])
    result, _ = executed(
        "T[s] = topk[m -> s](X[m])\nU[n] = sort[m -> n](X[m])\nA[] = argmax[m](X[m])\nB[] = argmin[m](-X[m])",
        ranks="m: 6, s: 4, n: m",
        inputs="X: [m]",
        outputs="T, U, A, B",
        arrays={"X": scores},
    )
    assert result["T"].tolist() == [1, 2, 4, 0]
    assert result["U"].tolist() == [1, 2, 4, 0, 5, 3]
    assert result["A"] == 1
    assert result["B"] == 1
    assert all(result[n].dtype == np.int64 for n in "TUAB")


def test_selections_leave_out_absent_points():
    result, given = executed(
        """
        T[s, p] = topk[m -> s](X[m, p]) where m < p
        A[p]    = argmax[m](X[m, p]) where m < p
        L[p]    = argmin[m](X[m, p]) where m < p
        """,
        ranks="m: 5, p: 4, s: 2",
        inputs="X: [m, p]",
        outputs="T, A, L",
    )
    for p in range(4):
        order = sorted(range(p), key=lambda m: -given["X"][m, p])[:2]
        assert result["T"][:, p].tolist() == order + [-1] * (2 - len(order))
        assert result["A"][p] == (order[0] if order else -1)
        assert result["L"][p] == (min(range(p), key=lambda m: given["X"][m, p]) if p else -1)
    assert result.present["A"].tolist() == [False, True, True, True]


def test_an_infinite_score_beats_an_absent_one():
    result, _ = executed(
        "A[] = argmax[m](X[m]) where m > 0\nT[s] = topk[m -> s](X[m]) where m > 0",
        ranks="m: 3, s: 2",
        inputs="X: [m]",
        outputs="A, T",
        arrays={"X": np.full(3, -np.inf)},
    )
    assert result["A"] == 1
    assert result["T"].tolist() == [1, 2]


# Absent points


def test_coalesce_joins_ranks():
    result, given = executed(
        "KK[e, n] = coalesce(K[e, n], G[e, n - M])",
        ranks="m: 4, s: 3, n: m + s, e: 2",
        inputs="K: [e, m], G: [e, s]",
        outputs="KK",
    )
    np.testing.assert_array_equal(result["KK"], np.concatenate([given["K"], given["G"]], axis=1))
    assert not result.present


def test_coalesce_fills():
    result, given = executed("Z[p] = X[p] - coalesce(X[p - 1], 0)", ranks="p: 5", inputs="X: [p]", outputs="Z")
    close(result["Z"], np.diff(given["X"], prepend=0))


def test_every_other_operator_is_absent_for_an_absent_operand():
    result, given = executed(
        "A[p] = X[p] + X[p - 1]\nB[p] = max(X[p], X[p - 1])\nC[p] = select(p > 0, X[p - 1], X[p])",
        ranks="p: 4",
        inputs="X: [p]",
        outputs="A, B, C",
    )
    for name in "ABC":
        assert result.present[name].tolist() == [False, True, True, True]
        assert np.isnan(result[name][0])
    close(result["B"][1:], np.maximum(given["X"][1:], given["X"][:-1]))


@pytest.mark.parametrize(
    ("op", "empty"), [("sum", 0), ("prod", 1), ("max", -np.inf), ("min", np.inf), ("mean", 0), ("any", 0), ("all", 1)]
)
def test_a_reduction_ignores_absent_points(op, empty):
    result, given = executed(
        f"Z[p] = {op}[m](X[m, p]) where m < p",
        ranks="m: 4, p: 4",
        inputs="X: [m, p]",
        outputs="Z",
        arrays={"X": np.array([[0.0, 2, 0, 5], [1, 2, 3, 4], [0, 0, 0, 1], [9, 9, 9, 9]])},
    )
    functions = {
        "sum": np.sum,
        "prod": np.prod,
        "max": np.max,
        "min": np.min,
        "mean": np.mean,
        "any": np.any,
        "all": np.all,
    }
    assert result["Z"][0] == empty
    for p in range(1, 4):
        assert result["Z"][p] == functions[op](given["X"][:p, p])
    assert not result.present


def test_mean_of_present_points():
    result, given = executed("Z[p] = mean[w](X[p + w - 1])", ranks="p: 5, w: 3", inputs="X: [p]", outputs="Z")
    expected = [np.mean(given["X"][max(0, p - 1) : p + 2]) for p in range(5)]
    close(result["Z"], expected)


def test_a_reduction_keeps_gaps_that_do_not_involve_its_ranks():
    """A score of a key that does not exist is no score; a row without keys has a maximum, the identity."""
    result, _ = executed(
        "S[m, p] = Q[e, p] * K[e, m] where m < p\nG[p] = max[m](S[m, p])\nR[p] = sum[m](S[m, p]) where KEEP[p]",
        ranks="m: 3, p: 3, e: 2",
        inputs="Q: [e, p], K: [e, m], KEEP: [p]",
        outputs="S, G, R",
        arrays={"KEEP": np.array([True, False, True])},
    )
    np.testing.assert_array_equal(result.present["S"], [[False, True, True], [False, False, True], [False] * 3])
    assert result["G"][0] == -np.inf
    assert "G" not in result.present
    assert result.present["R"].tolist() == [True, False, True]


def test_absent_points_hide_infinities_from_sums():
    result, _ = executed(
        "Z[p] = X[m, p] * Y[m] where m != 1",
        ranks="m: 3, p: 2",
        inputs="X: [m, p], Y: [m]",
        outputs="Z",
        arrays={"X": np.ones((3, 2)), "Y": np.array([1.0, np.inf, 2.0])},
    )
    assert result["Z"].tolist() == [3, 3]


def test_an_absent_condition_leaves_out():
    result, _ = executed("Z[p] = X[p] where X[p - 1] > -100", ranks="p: 3", inputs="X: [p]", outputs="Z")
    assert result.present["Z"].tolist() == [False, True, True]


def test_any_and_all_make_conditions():
    result, given = executed(
        """
        HIT[p] = any[m](X[m, p] > 0)
        ALL[p] = all[m](X[m, p] > 0)
        Z[p] = sum[m](X[m, p]) where HIT[p] and not ALL[p]
        """,
        ranks="m: 2, p: 6",
        inputs="X: [m, p]",
        outputs="HIT, ALL, Z",
    )
    positive = given["X"] > 0
    np.testing.assert_array_equal(result["HIT"], positive.any(axis=0))
    np.testing.assert_array_equal(result["ALL"], positive.all(axis=0))
    np.testing.assert_array_equal(result.present["Z"], positive.any(axis=0) & ~positive.all(axis=0))


# Sums of products


@pytest.mark.parametrize(
    ("equation", "expected"),
    [
        ("Z[p] = X[m, p] * Y[m]", "mp,m->p"),
        ("Z[p] = X[m, p] * Y[m] * Y[m]", "mp,m,m->p"),
        ("Z[p, q] = X[m, p] * X[m, q] * Y[m]", "mp,mq,m->pq"),
        ("Z[q] = X[m, p] * X[m, q]", "mp,mq->q"),
        ("Z[] = X[m, p] * X[m, p]", "mp,mp->"),
        ("Z[p] = sum[m, q](X[m, p] * X[m, q])", "mp,mq->p"),
        ("Z[m] = X[m, p] * X[m, q]", "mp,mq->m"),
        ("Z[m] = -X[m, p] * X[m, q]", "mp,mq->m"),
    ],
)
def test_sums_of_products(equation, expected):
    result, given = executed(equation, ranks="m: 4, p: 3, q: p", inputs="X: [m, p], Y: [m]"
                             if "Y" in equation else "X: [m, p]", outputs="Z")  # fmt: skip
    operands = [given["X"] if len(term) == 2 else given["Y"] for term in expected.split("->")[0].split(",")]
    sign = -1 if "-X" in equation else 1
    close(result["Z"], sign * np.einsum(expected, *operands))


def test_constants_in_products():
    result, given = executed(
        "Z[p] = 2 * X[m, p] * Y[m] / sqrt(M) * P / 3", ranks="m: 4, p: 3", inputs="X: [m, p], Y: [m]", outputs="Z"
    )
    close(result["Z"], given["Y"] @ given["X"])


def test_a_rank_only_in_the_condition_counts_its_points():
    result, given = executed(
        "Z[p] = sum[m, q](X[m, p] * Y[m]) where q <= p",
        ranks="m: 4, p: 3, q: p",
        inputs="X: [m, p], Y: [m]",
        outputs="Z",
    )
    close(result["Z"], (given["Y"] @ given["X"]) * [1, 2, 3])


# Operators

SAMPLES = [-3.5, -1.0, -0.25, 0.5, 1.0, 2.75]
MEANINGS = {
    "exp": math.exp, "exp2": lambda x: 2.0**x, "sigmoid": lambda x: 1 / (1 + math.exp(-x)), "tanh": math.tanh,
    "relu": lambda x: max(x, 0.0), "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))), "silu": lambda x: x / (1 + math.exp(-x)),
    "softplus": lambda x: math.log(1 + math.exp(x)), "sin": math.sin, "cos": math.cos, "floor": math.floor,
    "round": round, "abs": abs,
    "recip": lambda x: 1 / x,
}  # fmt: skip


@pytest.mark.parametrize("op", sorted(MEANINGS))
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 1e-6)])
def test_unary_operators(op, dtype, tolerance):
    result, _ = executed(f"Z[p] = {op}(X[p])", ranks="p: 6", inputs="X: [p]", outputs="Z",
                         arrays={"X": np.array(SAMPLES)}, dtype=dtype)  # fmt: skip
    assert result["Z"].dtype == dtype
    close(result["Z"], [MEANINGS[op](x) for x in SAMPLES], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("op", ["log", "sqrt", "rsqrt"])
def test_operators_of_positive_numbers(op):
    result, _ = executed(f"Z[p] = {op}(X[p])", ranks="p: 3", inputs="X: [p]", outputs="Z",
                         arrays={"X": np.array([0.25, 1, 9])})  # fmt: skip
    close(result["Z"], {"log": np.log, "sqrt": np.sqrt, "rsqrt": lambda x: x**-0.5}[op](np.array([0.25, 1, 9])))


def test_operators_far_from_zero_are_stable():
    result, _ = executed(
        "A[p] = softplus(X[p])\nB[p] = sigmoid(X[p])\nC[p] = silu(X[p])\nD[p] = elu(X[p])",
        ranks="p: 4",
        inputs="X: [p]",
        outputs="A, B, C, D",
        arrays={"X": np.array([-1e4, 1e4, -np.inf, np.inf])},
    )
    assert result["A"].tolist() == [0, 1e4, 0, np.inf]
    assert result["B"].tolist() == [0, 1, 0, 1]
    assert result["C"].tolist() == [0, 1e4, 0, np.inf]
    assert result["D"].tolist() == [-1, 1e4, -1, np.inf]


def test_arithmetic_on_coordinates_stays_whole():
    result, _ = executed(
        "A[p] = (p - 3) // 2\nB[p] = (p - 3) % 2\nC[p] = p * P\nD[p] = p / 2\nE1[p] = X[p] * 0 + (p > 1)",
        ranks="p: 4",
        inputs="X: [p]",
        outputs="A, B, C, D, E1",
    )
    assert result["A"].tolist() == [-2, -1, -1, 0]
    assert result["B"].tolist() == [1, 0, 1, 0]
    assert result["C"].tolist() == [0, 4, 8, 12]
    assert result["C"].dtype == np.int64
    assert result["D"].tolist() == [0, 0.5, 1, 1.5]
    assert result["E1"].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("body", ["X[p] * p", "X[p] / P", "X[p] + 0.1", "pow(X[p], 2)", "p / P + X[p]", "max(X[p], 0)",
                                  "select(X[p] > 0, 1, X[p])", "coalesce(X[p - 1], 0)"])  # fmt: skip
def test_constants_do_not_widen(body):
    result, _ = executed(f"Z[p] = {body}", ranks="p: 4", inputs="X: [p]", outputs="Z", dtype="float32")
    assert result["Z"].dtype == np.float32


def test_an_index_that_is_no_whole_number():
    cascade = cascade_of("Z[p] = X[p / 2]", ranks="p: 4", inputs="X: [p]", outputs="Z")
    with pytest.raises(InputError, match=r"the index `p / 2` is 0\.5; expected a whole number") as caught:
        run(cascade)
    assert (caught.value.where.line, caught.value.where.column) == (6, 14)
