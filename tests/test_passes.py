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


TILES = "ranks: {i: 12, i0: 4, i1: ceil(i / i0), j0: i0, j1: i1, e: 4}\nsplit: {i: [i1, i0]}\n"
SUMS = ("LC[0] = 0", "LC[m+1] = LC[m] + A[m]")


def of_tiles(inputs: str, *einsums: str) -> tuple[int, int]:
    """Passes over the whole rank and over a tile of it."""
    lines = "".join(f"  {e}\n" for e in einsums)
    cascade = parse_cascade(f"name: x\n{TILES}inputs: {{{inputs}}}\noutputs: [Y]\neinsums: |\n{lines}")
    found = passes(cascade, extents_of(cascade)).passes
    assert found["i1"] == found["i"]
    return found["i"], found["i0"]


@pytest.mark.parametrize(
    "scores",
    [
        ["U[i1, i0] = X[i1, i0] * 2", "L[i1, i0] = sum[j0](U[i1, j0]) where j0 <= i0"],
        ["U[i] = X[i] * 2", "L[i1, i0] = sum[j0](U[i1, j0]) where j0 <= i0"],
        ["U[i1, i0] = X[i1, i0] * 2", "L[i1, i0] = sum[j0](U[i1 * I0 + j0]) where j0 <= i0"],
        ["U[i1, i0] = X[i1, i0] * 2", "L[i] = sum[j0](U[i // I0 * I0 + j0])"],
        ["U[i1, 0] = 0", "U[i1, i0+1] = U[i1, i0] + X[i1, i0]", "L[i1, i0] = U[i1, I0] * 2"],
        ["U[0] = 0", "U[i+1] = U[i] + X[i]", "L[i1, i0] = U[i1 * I0 + I0] * 2"],
        ["U[0] = 0", "U[i+1] = U[i] + X[i]", "T[i1] = U[i1 * I0 + I0] * 2", "L[i1, i0] = X[i1, i0] * T[i1]"],
    ],
)
def test_a_tile_read_whole_in_its_place_is_no_traversal_of_the_fiber(scores: list[str]) -> None:
    """The tile is traversed once more, and the other tiles are not waited for."""
    assert of_tiles("X: [i], W: [i]", *scores, "Y[i] = L[i] * W[i]") == (1, 2)


@pytest.mark.parametrize("read", ["sum[j1](U[j1, i0])", "sum[j1](U[j1 * I0 + i0])", "sum[j1, j0](U[j1 * I0 + j0])"])
def test_what_lies_across_the_tiles_is_the_whole_fiber(read: str) -> None:
    found = of_tiles("X: [i], W: [i]", "U[i] = X[i] * 2", f"L[i1, i0] = {read}", "Y[i] = L[i] * W[i]")
    assert found == (2, 2 if "j0" in read else 1)
    kept = of_tiles("X: [i]", "T[i0] = sum[i1](X[i1, i0])", "Y[i1, i0] = X[i1, i0] * T[i0]")
    assert kept == (2, 1)


def test_a_summary_of_a_tile_is_there_when_its_elements_are() -> None:
    """N needs all of X and so is made in pass 2; so are the sums of its tiles, although each is of one tile only."""
    found = of_tiles(
        "X: [i]", "G[] = max[i](X[i])", "N[i] = exp(X[i] - G)", "D[i1] = sum[i0](N[i1, i0])",
        "Y[i1, i0] = X[i1, i0] * D[i1]",
    )  # fmt: skip
    assert found == (2, 3)


def test_a_state_of_earlier_tiles_is_no_traversal_of_this_one() -> None:
    """Each chunk sums what it makes of the state before it: once through the chunk, and once more for the weights."""
    found = of_tiles(
        "X: [i], W: [i]", "S[0] = 0", "U[i1, i0] = X[i1, i0] * S[i1]", "C[i1] = sum[i0](U[i1, i0])",
        "S[i1+1] = S[i1] + C[i1]", "Y[i1, i0] = W[i1, i0] * S[i1+1]",
    )  # fmt: skip
    assert found == (1, 2)


@pytest.mark.parametrize(
    ("equations", "expected"),
    [
        # what sums up to p is needed at every m <= p, so before its step; the same with the sums written out
        ([*SUMS, "L[m, p] = exp(LC[p+1] - LC[m+1]) where m <= p", "Y[p] = L[m, p] * X[m]"], 2),
        (
            [
                *SUMS, "B[p] = sum[m](A[m]) where m <= p", "L[m, p] = exp(B[p] - LC[m+1]) where m <= p",
                "Y[p] = L[m, p] * X[m]",
            ],
            2,
        ),
        # at its own step or later
        ([*SUMS, "L[m, p] = exp(LC[p+1] - LC[m+1]) where m >= p", "Y[p] = L[m, p] * X[m]"], 1),
        ([*SUMS, "D[m, p] = X[m] * 2 where p < m", "Y[p] = D[m, p] * LC[p+1]"], 1),
        ([*SUMS, "Y[m] = X[m] * LC[m // 2]"], 1),
        ([*SUMS, "Y[m] = X[m] * LC[m + 1] / LC[m]"], 1),
        ([*SUMS, "Y[m] = X[m] * LC[m + 3]"], 1),  # a window, as any other tensor has it
        # before its step
        ([*SUMS, "Y[m] = X[m] * LC[M - m]"], 2),
        ([*SUMS, "Y[m] = X[m] * LC[2 * m]"], 2),
        ([*SUMS, "Y[m] = X[m] * LC[M - 1]"], 2),
        ([*SUMS, "Z[p] = exp(LC[p+1])", "Y[p] = Z[p] * X[m]"], 2),
    ],
)  # fmt: skip
def test_a_prefix_is_waited_for_where_it_is_used_before_its_step(equations: list[str], expected: int) -> None:
    assert of("A: [m], X: [m]", "Y", *equations).passes["m"] == expected


def test_one_element_of_a_fiber_is_no_traversal_of_it() -> None:
    assert of("X: [n]", "Y", "Y[n] = X[n] - X[0] * X[N - 1]").passes["n"] == 1
    weights = ("B[] = sum[n](X[n])", "A[n] = X[n] / B", "Y[n] = X[n] - A[0]")
    assert of("X: [n]", "Y", *weights).passes["n"] == 2  # the element is of pass 2


def test_parts_and_whole_of_a_split_mix() -> None:
    """Weights by the maximum of each tile, undone at the end: the sum over e in between is by whole p."""
    found = of_tiles(
        "Q: [e, i], K: [e]",
        "M[i1] = max[e, i0](Q[e, i1, i0])",
        "B[e, i1, i0] = Q[e, i1, i0] / M[i1]",
        "S[i] = B[e, i] * K[e]",
        "Y[i1, i0] = S[i1, i0] * M[i1]",
    )
    assert found == (1, 2)


@pytest.mark.parametrize("scores", ["i", "i1, i0"])
@pytest.mark.parametrize("over", ["i", "i1, i0"])
def test_softmax_over_a_split_rank_is_three_passes_however_it_is_written(scores: str, over: str) -> None:
    found = of_tiles(
        "Q: [e], K: [e, i]",
        f"QK[{scores}] = Q[e] * K[e, {scores}]",
        f"G[] = max[{over}](QK[{over}])",
        f"N[{over}] = exp(QK[{over}] - G)",
        f"D[] = sum[{over}](N[{over}])",
        f"Y[{scores}] = N[{scores}] / D",
    )
    assert found == (3, 3)


@pytest.mark.parametrize("choice", ["J[p] = argmax[n](L[p, n])", "J[s, p] = topk[n -> s](L[p, n])"])
def test_an_element_chosen_from_the_whole_fiber_is_another_pass(choice: str) -> None:
    slot = "s, p" if "topk" in choice else "p"
    cascade = parse_cascade(
        "name: chosen\nranks: {p: 4, n: 8, f: 3, e: 2, s: 1}\n"
        "inputs: {Q: [p, e], K: [n, e], V: [n, f]}\noutputs: [O]\neinsums: |\n"
        f"  L[p, n] = Q[p, e] * K[n, e]\n  {choice}\n  O[p, f] = V[J[{slot}], f]\n"
    )
    found = passes(cascade, extents_of(cascade))
    assert found.passes["n"] == 2
    assert any("J is complete after pass 1" in line for line in found.why["n"])


@pytest.mark.parametrize(
    ("equations", "expected"),
    [
        (["IX[m] = sort[n -> m](X[n])", "C[] = X[IX[M // 2]]", "Y[] = sum[n](abs(X[n] - C))"], 3),  # sort, pick, run
        (["WHICH[] = argmax[n](X[n])", "C[] = X[WHICH]", "Y[n] = exp(X[n] - C)"], 3),
        (["WHICH[] = argmax[n](X[n])", "C[] = exp(X[WHICH])", "Y[] = C * W[WHICH]"], 2),  # read beside each other
        (["WHICH[] = argmax[n](X[n])", "C[] = exp(X[WHICH])", "Y[t] = C * W[WHICH] * Z[t]"], 2),
    ],
)
def test_what_runs_over_the_fiber_waits_for_an_element_that_all_of_it_chose(
    equations: list[str], expected: int
) -> None:
    inputs = ", ".join(f"{t}: [{r}]" for t, r in (("X", "n"), ("W", "n"), ("Z", "t")) if f"{t}[" in " ".join(equations))
    found = of(inputs, "Y", *equations)
    assert found.passes["n"] == expected
    assert any(w.startswith("Y traverses n in pass 3: it needs C, complete after pass 2") for w in found.why["n"]) == (
        expected > 2
    )


@pytest.mark.parametrize("first", ["0", "I0 - 1"])
def test_one_element_of_each_tile_is_no_traversal_of_it(first: str) -> None:
    assert of_tiles("X: [i]", f"L[i1] = sum[i0](X[i1, i0] - X[i1, {first}])", "Y[i] = X[i] * L[i // I0]") == (1, 2)
    late = ("L[i1] = sum[i0](X[i1, i0])", "A[i] = X[i] / L[i // I0]", f"Y[i1, i0] = X[i1, i0] - A[i1, {first}]")
    assert of_tiles("X: [i]", *late) == (1, 2)
