"""Norms and sums of exponentials against plain NumPy, their passes, and what they equal."""

import numpy as np
import pytest
from mechanisms import agreement, loaded, pass_counts

from fusemodel.cascade import extents_of
from fusemodel.numerics import compare, random_inputs, run

# extents beyond those of the field `test`; a single row and rows of one element are among them
ROWS = [{}, {"p": 1, "n": 29}, {"p": 7, "n": 1}, {"p": 3, "n": 2}]
SHAPES = {
    "layer-norm": ROWS,
    "rms-norm": ROWS,
    "batch-norm": [{}, {"n": 29, "c": 1}, {"n": 1, "c": 7}, {"n": 2, "c": 3}],
    "mean-variance": ROWS,
    "welford": ROWS,
    "log-sum-exp": ROWS,
    "log-sum-exp-online": ROWS,
    "cross-entropy": ROWS,
    "cosine-similarity": ROWS,
    "sinkhorn": [{}, {"i": 1, "j": 9, "k": 1}, {"i": 11, "j": 1, "k": 2}, {"i": 4, "j": 4, "k": 13}],
    "topk-normalise": [{}, {"p": 1, "n": 29, "s": 8}, {"p": 7, "n": 1, "s": 1}, {"p": 2, "n": 4, "s": 1}],
}
PASSES = {
    ("layer-norm", "n"): (3, 2),  # the square of the deviations is that of the elements less that of their mean
    ("rms-norm", "n"): (2, 2),  # consumed whole: each element needs the sum of all
    ("batch-norm", "n"): (3, 2),
    ("mean-variance", "n"): (2, 1),
    ("welford", "n"): (1, 1),
    ("log-sum-exp", "n"): (2, 1),
    ("log-sum-exp-online", "n"): (1, 1),
    ("cross-entropy", "n"): (2, 1),
    ("cosine-similarity", "n"): (1, 1),
    ("sinkhorn", "i"): (21, 21),  # 20 rounds, each a sum along columns of what the sums of rows scaled, and one more
    ("sinkhorn", "j"): (22, 22),
    ("topk-normalise", "n"): (3, 3),
    ("topk-normalise", "s"): (2, 2),
}
ROW_NORMS = ("layer-norm", "rms-norm")


test_equals_the_reference = agreement(SHAPES)
test_passes = pass_counts(PASSES)


def inputs_of(name, extents=None, seed=5):
    cascade = loaded(name)
    sizes = extents_of(cascade, {**cascade.test, **(extents or {})})
    return random_inputs(cascade, sizes, seed=seed), sizes


def outputs_of(name, inputs, sizes):
    cascade = loaded(name)
    return run(cascade, inputs, {r: sizes[r] for r in cascade.ranks if r in sizes}).outputs


def output_of(name, inputs, sizes):
    return next(iter(outputs_of(name, inputs, sizes).values()))


def close(found, expected, tolerance=1e-10):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_one_pass_gives_the_same_moments():
    inputs, sizes = inputs_of("mean-variance")
    inputs["X"] += 100
    one, two = outputs_of("welford", inputs, sizes), outputs_of("mean-variance", inputs, sizes)
    for name in ("MU", "VAR"):
        close(one[name], two[name])


def test_a_batch_norm_is_a_layer_norm_of_columns():
    """With gain and bias by column instead of by element."""
    inputs, sizes = inputs_of("batch-norm")
    inputs["G"][:], inputs["BETA"][:] = 1, 0
    rows = {"X": inputs["X"], "G": np.ones(sizes["n"]), "B": np.zeros(sizes["n"])}
    close(output_of("batch-norm", inputs, sizes), output_of("layer-norm", rows, {"p": sizes["c"], "n": sizes["n"]}))


def test_a_layer_norm_of_centred_rows_without_bias_is_a_norm_by_mean_square():
    inputs, sizes = inputs_of("layer-norm")
    inputs["X"] = 1000 * (inputs["X"] - inputs["X"].mean(axis=0))  # beside which both small constants are nothing
    inputs["B"][:] = 0
    plain = {"X": inputs["X"], "G": inputs["G"]}
    close(output_of("layer-norm", inputs, sizes), output_of("rms-norm", plain, sizes), 1e-9)


@pytest.mark.parametrize("name", ROW_NORMS)
def test_rows_without_any_spread_are_not_divided_by_zero(name):
    inputs, sizes = inputs_of(name)
    inputs["X"][:] = 0
    expected = np.broadcast_to(inputs.get("B", np.zeros(sizes["n"]))[:, None], inputs["X"].shape)
    close(output_of(name, inputs, sizes), expected)


@pytest.mark.parametrize("name", ["log-sum-exp", "log-sum-exp-online"])
@pytest.mark.parametrize("shift", [-5000.0, 0.0, 5000.0])
def test_exponentials_that_overflow_are_summed(name, shift):
    inputs, sizes = inputs_of(name)
    inputs["X"] += shift
    assert compare(loaded(name), sizes, inputs=inputs).max_rel_error < 1e-12


def test_even_logits_cost_the_logarithm_of_the_classes():
    inputs, sizes = inputs_of("cross-entropy")
    inputs["X"][:] = 40
    close(output_of("cross-entropy", inputs, sizes), np.full(sizes["p"], np.log(sizes["n"])))


def test_parallel_rows_are_alike_and_orthogonal_ones_are_not():
    inputs, sizes = inputs_of("cosine-similarity", {"p": 3, "n": 2})
    inputs["X"][:] = [[1, 0, 3], [2, 5, 0]]
    inputs["Y"][:] = [[2, 0, 0], [4, -1, 7]]
    close(output_of("cosine-similarity", inputs, sizes), [1, -1, 0])


def test_a_scaled_matrix_has_even_sums():
    """Rows sum to 1, and the columns share what the rows have."""
    inputs, sizes = inputs_of("sinkhorn", {"i": 6, "j": 9, "k": 200})
    made = output_of("sinkhorn", inputs, sizes)
    close(made.sum(axis=1), np.ones(6))
    close(made.sum(axis=0), np.full(9, 6 / 9))


def test_a_matrix_of_rank_one_is_even_after_one_round():
    inputs, sizes = inputs_of("sinkhorn", {"i": 4, "j": 5, "k": 1})
    inputs["X"] = inputs["X"][:, :1] + inputs["X"][:1, :]
    close(output_of("sinkhorn", inputs, sizes), np.full((4, 5), 1 / 5))


def test_all_elements_chosen_are_a_sorted_share():
    inputs, sizes = inputs_of("topk-normalise", {"n": 4, "s": 4, "p": 1})
    inputs["X"][:, 0] = [1, 4, 2, 3]
    close(output_of("topk-normalise", inputs, sizes)[:, 0], [0.4, 0.3, 0.2, 0.1])
