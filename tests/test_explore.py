"""The mapper: its winner against brute force over its own space, against the model, and against library mappings."""

from __future__ import annotations

from itertools import permutations, product

import pytest
from test_counts import ARCH

from fusemodel import evaluate
from fusemodel.arch import load_architecture, parse_architecture
from fusemodel.cascade import extents_of, load_cascade, parse_cascade
from fusemodel.cascade.workload import extents_for, load_workload
from fusemodel.errors import InputError
from fusemodel.explore import best_mapping
from fusemodel.explore.choices import fields_of
from fusemodel.explore.layout import Problem, lay_out
from fusemodel.explore.mapper import _Search
from fusemodel.mapping import parse_design
from fusemodel.mapping.check import main_einsums
from fusemodel.mapping.load import design_of, group_of
from fusemodel.mapping.spec import Candidates
from fusemodel.model import evaluate as evaluate_design

#: Two levels; what is on chip holds {size} words.
SMALL = "\n".join(x for x in ARCH.splitlines() if not x.startswith("  l2")).replace("size: 1 MiB", "size: {size} B")
CASCADES = {
    "product": "ranks: {m: 12, n: 8, k: 4}\ninputs: {A: [m, k], B: [k, n]}\noutputs: [Z]\n"
    "einsums: 'Z[m, n] = A[m, k] * B[k, n]'\n",
    "softmax": "ranks: {p: 8, m: 6}\ninputs: {X: [p, m]}\noutputs: [A]\neinsums: |\n  G[p] = max[m](X[p, m])\n"
    "  N[p, m] = exp(X[p, m] - G[p])\n  D[p] = sum[m](N[p, m])\n  A[p, m] = N[p, m] / D[p]\n",
    "causal": "ranks: {p: 8, m: 4, e: 2}\ninputs: {Q: [p, e], K: [m, e]}\noutputs: [G]\neinsums: |\n"
    "  S[p, m] = Q[p, e] * K[m, e] where m <= p\n  G[p] = max[m](S[p, m])\n",
}


def search_of(cascade, arch, objectives):
    return _Search(cascade, arch, main_einsums(cascade), extents_of(cascade), objectives, 10**9)


def everything(cascade, arch, objectives):
    """The best score of every mapping in the frames that the mapper looks at, one evaluation each."""
    search = search_of(cascade, arch, objectives)
    best = None
    n = len(search.blocks)
    shape = search.shape(0, n, search.widest)
    sizes, length = search.sizes(shape)
    for order in permutations(shape.ranks):
        structure = search.structure(shape, order, sizes)
        names = list(structure.places)
        for at in range(length):
            picked = {x: int(v[at]) for x, v in sizes.items() if hasattr(v, "shape")}
            for indices in product(*(range(len(structure.places[t])) for t in names)):
                fields = fields_of(structure, dict(zip(names, indices, strict=True)), picked)
                try:
                    design = design_of("x", cascade, arch, [Candidates((group_of(fields, cascade, arch),), ())])
                    found = evaluate_design(design)
                except InputError:
                    continue
                if any("registers" in note for note in found.notes):
                    continue
                score = score_of(found, arch, objectives)
                if best is None or score < best:
                    best = score
    return best


def score_of(found, arch, objectives):
    of = {
        "latency": found.cycles, "dram": found.dram_bytes / arch.word_bytes,
        "energy": (found.energy_j - sum(
            v for k, v in found.energy_breakdown_j.items() if k.endswith(".registers"))) * 1e12,
    }  # fmt: skip
    return tuple(of[o] for o in objectives)


@pytest.mark.parametrize("name", CASCADES)
@pytest.mark.parametrize(
    ("size", "objectives"),
    [(4000, ("latency", "dram", "energy")), (40, ("energy", "latency", "dram")), (8, ("latency", "dram", "energy"))],
)
def test_equals_brute_force(name, size, objectives):
    cascade = parse_cascade(f"name: {name}\n{CASCADES[name]}")
    arch = parse_architecture(SMALL.replace("{size}", str(size)))
    expected = everything(cascade, arch, objectives)
    search = search_of(cascade, arch, objectives)
    shape = search.shape(0, len(search.blocks), search.widest)
    found = search.framed(shape, None)
    assert (found is None) == (expected is None)
    if found:
        assert found.score[1:] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seq", [2**10, 2**14, 2**18])
def test_one_pass_is_no_worse_than_the_published_mapping(seq):
    cascade, arch, bert = load_cascade("attention-1pass"), load_architecture("fusemax-cloud"), load_workload("bert")
    found = best_mapping(cascade, arch, extents_of(cascade, extents_for(cascade, bert, seq)))
    ours, published = evaluate_design(found.design, bert, seq), evaluate("fusemax", bert, seq)
    assert ours.latency_s <= published.latency_s
    assert ours.dram_bytes <= published.dram_bytes
    assert not ours.notes
    assert found.score == pytest.approx(score_of(ours, arch, found.objectives), rel=1e-9)
    replayed = evaluate_design(parse_design(found.text("attention-1pass", "fusemax-cloud")), bert, seq)
    assert (replayed.cycles, replayed.energy_j, replayed.dram_bytes) == (ours.cycles, ours.energy_j, ours.dram_bytes)


@pytest.mark.parametrize("seq", [2**10, 2**14])
def test_three_passes_are_no_worse_than_the_published_mapping(seq):
    cascade, arch, bert = load_cascade("attention-3pass"), load_architecture("flat-cloud"), load_workload("bert")
    found = best_mapping(cascade, arch, extents_of(cascade, extents_for(cascade, bert, seq)))
    ours, published = evaluate_design(found.design, bert, seq), evaluate("flat", bert, seq)
    assert ours.latency_s <= published.latency_s * (1 + 1e-9)
    assert ours.dram_bytes <= published.dram_bytes
    assert ours.energy_j <= published.energy_j * (1 + 1e-9)


def test_layout_by_hand():
    """A product with its sum spread over y: the output stays, and each operand enters once."""
    free = (("m", 4), ("n", 4), ("k", 8))
    of = tuple(map(frozenset, (("m", "k"), ("k", "n"), ("m", "n"))))
    shape = (("x", 4), ("y", 8))
    found = lay_out(Problem(free, (), frozenset("k"), of, shape, frozenset("y"), 1000))
    assert found.steps == 4
    assert found.spatial["y"] == ("k",)
    alone = lay_out(Problem(free, (), frozenset("k"), of, shape, frozenset(), 1000))
    assert alone.steps == 8  # m and n spread; k in time, the output staying in the array
    assert alone.loops == ("k",)


def test_nothing_can_compute_it():
    cascade = parse_cascade("name: x\nranks: {p: 4}\ninputs: {X: [p]}\noutputs: [Z]\neinsums: 'Z[p] = sin(X[p])'\n")
    arch = parse_architecture(SMALL.replace("{size}", "100"))
    with pytest.raises(InputError, match=r"no unit of 'three-levels' can compute 'Z'.*a unit with sin"):
        best_mapping(cascade, arch, extents_of(cascade))
