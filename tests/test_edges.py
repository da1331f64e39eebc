"""The dependence graph, edge by edge, against what each equation says in words."""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx
import pytest

from fusemodel.analysis import dependence_graph, edges
from fusemodel.cascade import load_cascade, parse_cascade
from fusemodel.library import names

RANKS = "ranks: {b: 2, p: 8, m: 8, e: 4, w: 3, s: 2, i: 6, i0: 3, i1: i / i0, j0: i0}\nsplit: {i: [i1, i0]}\n"


def graph_of(inputs: str, output: str, *einsums: str) -> nx.MultiDiGraph:
    lines = "".join(f"  {e}\n" for e in einsums)
    return dependence_graph(
        parse_cascade(f"name: x\n{RANKS}inputs: {{{inputs}}}\noutputs: [{output}]\neinsums: |\n{lines}")
    )


def reach(graph: nx.MultiDiGraph, before: str, after: str) -> Mapping[str, str]:
    """How far the one edge from a tensor to another goes."""
    (data,) = graph.get_edge_data(before, after).values()
    return data["ranks"]


def test_one_pass_attention() -> None:
    graph = dependence_graph(load_cascade("attention-1pass"))
    batch = {"b": "pointwise", "h": "pointwise"}
    assert graph.nodes["Q"]["kind"] == "input"
    assert graph.nodes["RM"]["kind"] == "einsum"
    assert graph.nodes["AV"]["kind"] == "output"
    assert reach(graph, "Q", "QK") == {
        **batch,
        "e": "reduction",
        "p": "pointwise",
        "m1": "broadcast",
        "m0": "broadcast",
    }
    assert reach(graph, "K", "QK") == {**batch, "e": "reduction", "m": "pointwise", "p": "broadcast"}
    assert reach(graph, "QK", "LM") == {**batch, "m1": "pointwise", "m0": "reduction", "p": "pointwise"}
    assert reach(graph, "LM", "RM") == {**batch, "m1": "pointwise", "p": "pointwise"}
    assert reach(graph, "RM", "RM") == {**batch, "m1": "prefix", "p": "pointwise"}
    assert reach(graph, "RM", "SLN") == {**batch, "m1": "prefix", "p": "pointwise", "m0": "broadcast"}
    assert reach(graph, "RD", "AV") == {**batch, "m1": "reduction", "p": "pointwise", "f": "broadcast"}
    both = graph.get_edge_data("RM", "PRM").values()  # before a tile and after it
    assert sorted(e["access"] for e in both) == ["RM[b, h, m1 + 1, p]", "RM[b, h, m1, p]"]


@pytest.mark.parametrize(
    ("equations", "along"),
    [
        (["Y[p] = X[p] * 2"], "pointwise"),
        (["Y[m] = X[m] * 2"], "pointwise"),  # by another name
        (["Y[p] = sum[m](X[m])"], "reduction"),
        (["Y[p] = X[p + w - 1] * F[w]"], "window"),
        (["Y[p] = coalesce(X[p - 1], 0)"], "window"),
        (["Y[p] = sum[m](X[m]) where m <= p"], "prefix"),
        (["Y[p] = sum[m](X[m]) where m > p"], "prefix"),
        (["Y[p] = sum[m](X[m]) where m // 2 < p // 2"], "prefix"),
        (["Y[p] = sum[m](X[m]) where abs(m - p) <= 1"], "window"),
        (["Y[p] = sum[m](X[m]) where m <= p and m + 3 > p"], "window"),
        (["Y[p] = sum[m](X[m]) where m // 4 == p // 4"], "window"),
        (["Y[p] = sum[m](X[m]) where m < 5"], "reduction"),  # the same for every element
        (["T[s] = topk[p -> s](X[p])", "Y[s] = T[s] * 2"], "selection"),
        (["Y[s] = X[J[s]]"], "selection"),
        (["Y[e] = X[0] * E"], "selection"),
    ],
)
def test_the_ways_to_read_along_a_rank(equations: list[str], along: str) -> None:
    used = {"X": "p", "F": "w", "J": "s"}
    inputs = ", ".join(f"{n}: [{r}]" for n, r in used.items() if any(f"{n}[" in e for e in equations))
    graph = graph_of(inputs, "Y", *equations)
    (after,) = graph.successors("X")
    assert reach(graph, "X", after)["p"] == along


def test_a_condition_comes_with_an_operand() -> None:
    """Values are summed where scores are, which are masked."""
    graph = dependence_graph(load_cascade("causal-attention"))
    assert reach(graph, "V", "O")["m"] == "prefix"
    assert reach(graph, "K", "QK")["m"] == "pointwise"


def test_sums_step_by_step() -> None:
    graph = graph_of("X: [p]", "Y", "C[0] = 0", "C[p+1] = C[p] + X[p]", "Y[p] = C[p+1] / C[P] + C[0]")
    assert reach(graph, "X", "C") == {"p": "pointwise"}
    assert reach(graph, "C", "C") == {"p": "prefix"}
    found = {data["access"]: data["ranks"]["p"] for data in graph.get_edge_data("C", "Y").values()}
    assert found == {"C[p + 1]": "prefix", "C[P]": "reduction", "C[0]": "selection"}


def test_tiles() -> None:
    graph = graph_of(
        "X: [i], Z: [i]", "Y", "L[i1, i0] = sum[j0](X[i1 * I0 + j0] * Z[i1, i0])", "T[i1] = max[i0](L[i1, i0])",
        "Y[i] = L[i] * T[i // I0]",
    )  # fmt: skip
    assert reach(graph, "X", "L") == {"i": "window", "i0": "broadcast"}
    assert reach(graph, "Z", "L") == {"i": "pointwise", "j0": "broadcast"}
    assert reach(graph, "L", "T") == {"i1": "pointwise", "i0": "reduction"}
    assert reach(graph, "L", "Y") == {"i1": "pointwise", "i0": "pointwise"}
    assert reach(graph, "T", "Y") == {"i1": "pointwise"}


def test_a_gather_and_a_scatter() -> None:
    graph = graph_of(
        "X: [e, p], J: [s], T: [p]",
        "Y",
        "G[e, s] = X[e, J[s]]",
        "Z[e, J[s]] = sum[s](G[e, s] * T[J[s]])",
        "Y[e, p] = Z[e, p] * 2",
    )
    assert reach(graph, "X", "G") == {"e": "pointwise", "p": "selection"}
    assert reach(graph, "J", "G") == {"s": "pointwise", "e": "broadcast"}
    assert reach(graph, "G", "Z") == {"e": "pointwise", "s": "reduction"}


@pytest.mark.parametrize("name", names("cascades"))
def test_every_cascade_of_the_library(name: str) -> None:
    """One edge for each access of each equation; without iterative tensors nothing depends on itself."""
    cascade = load_cascade(name)
    graph = dependence_graph(cascade)
    rows = edges(cascade)
    assert len(rows) == graph.number_of_edges()
    assert {row["from"] for row in rows} >= set(cascade.inputs)
    for row in rows:
        assert set(cascade.full_ranks(row["from"])) <= set(row["ranks"])
    if not any(t.iterative for t in cascade.tensors.values()):
        assert nx.is_directed_acyclic_graph(graph)
