"""Pass counts against the taxonomy of the FuseMax paper and textbook arguments, each with the reason spelt out."""

from __future__ import annotations

import pytest

from fusemodel import load_cascade, parse_cascade
from fusemodel.analysis import Passes, passes
from fusemodel.cascade import extents_of

RANKS = "ranks: {p: 8, m: 16, n: 16, e: 4, f: 4, t: 5, i: 6, j: 7, s: 4}\n"


def counted(name: str) -> Passes:
    cascade = load_cascade(name)
    return passes(cascade, extents_of(cascade))


def of(inputs: str, outputs: str, *einsums: str) -> Passes:
    used = " ".join(einsums)
    text = "name: x\n" + RANKS + f"inputs: {{{inputs}}}\noutputs: [{outputs}]\neinsums: |\n"
    assert used
    cascade = parse_cascade(text + "".join(f"  {e}\n" for e in einsums))
    return passes(cascade, extents_of(cascade))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("attention-unstable", 2),  # the denominator is complete only after all keys
        ("attention-3pass", 3),  # maximum, denominator, weights
        ("attention-2pass-deferred", 2),  # the division waits for the output instead
        ("attention-2pass-localmax", 2),  # pass 1 stops at the global maximum of tile maxima
        ("attention-1pass", 1),
        ("flash1", 1),
        ("flash-decoding", 1),
    ],
)
def test_the_taxonomy_of_softmax_attention(name: str, expected: int) -> None:
    assert counted(name).passes["m"] == expected


@pytest.mark.parametrize(
    ("name", "rank", "expected"),
    [
        ("mean-variance", "n", 2),
        ("welford", "n", 1),
        ("layer-norm", "n", 3),
        ("rms-norm", "n", 2),  # consumed unreduced: each element needs the sum of all
        ("log-sum-exp", "n", 2),
        ("log-sum-exp-online", "n", 1),
        ("cross-entropy", "n", 2),
        ("cosine-similarity", "n", 1),
        ("batch-norm", "n", 3),
        ("topk-normalise", "n", 3),  # select, sum what was selected, scale it
        ("topk-normalise", "s", 2),
    ],
)
def test_outside_attention(name: str, rank: str, expected: int) -> None:
    assert counted(name).passes[rank] == expected


def test_the_outer_part_of_a_split_counts_the_whole_fiber_and_the_inner_part_a_tile() -> None:
    found = counted("attention-1pass").passes
    assert found["m1"] == found["m"] == 1
    assert found["m0"] == 2  # the tile's maximum before its exponentials


def test_the_chain_names_each_reduction_that_forces_a_pass() -> None:
    why = counted("attention-3pass").why["m"]
    assert [w.split()[0] for w in why] == ["GM", "SN", "SD", "A"]
    assert "complete after pass 1" in why[0]
    assert "pass 3" in why[-1]


def test_passes_by_tensor() -> None:
    tensors = counted("attention-3pass").tensors
    assert [tensors[t]["m"] for t in ("QK", "GM", "SN", "SD", "A", "AV")] == [1, 1, 2, 2, 3, 3]


def test_a_prefix_of_an_iterative_rank_adds_nothing_and_its_end_does() -> None:
    prefix = of("X: [n]", "Y", "W[0] = 0", "W[n+1] = W[n] + X[n]", "Y[n] = X[n] / W[n+1]")
    assert prefix.passes["n"] == 1
    end = of("X: [n]", "Y", "W[0] = 0", "W[n+1] = W[n] + X[n]", "Y[n] = X[n] / W[N]")
    assert end.passes["n"] == 2


def test_a_loop_along_another_rank_makes_its_passes_in_every_step() -> None:
    """Each step of power iteration needs the whole vector of the step before: T + 1 traversals of j in all."""
    found = of(
        "G: [i, j], X: [j]", "Y",
        "C[0, j] = X[j]",
        "R[t, i] = sum[j](G[i, j] * C[t, j])",
        "C[t+1, j] = sum[i](G[i, j] * R[t, i])",
        "Y[i] = sum[j](G[i, j] * C[T, j])",
    )  # fmt: skip
    assert found.passes["j"] == 5 + 1


def test_the_growth_of_a_loop_does_not_depend_on_how_many_steps_are_unrolled() -> None:
    for k in (1, 2, 3, 7, 20, 1000):
        cascade = load_cascade("sinkhorn")
        found = passes(cascade, extents_of(cascade, {"k": k}))
        assert found.passes["i"] == k + 1
        assert found.passes["j"] == k + 2


def test_independent_reductions_share_a_pass() -> None:
    assert of("X: [n], Y: [n]", "C", "A[] = X[n] * X[n]", "B[] = Y[n] * X[n]", "C[] = A / B").passes["n"] == 1


def test_a_reduction_over_another_rank_is_no_barrier() -> None:
    assert of("X: [n, e]", "Y", "A[n] = X[n, e]", "Y[n, e] = X[n, e] / A[n]").passes == {
        **dict.fromkeys("pmftijs", 0), "n": 1, "e": 2,
    }  # fmt: skip
