"""Counts of the closed-form model against a walk of the loop nests, and against formulas derived by hand."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import permutations, product
from math import prod
from pathlib import Path
from typing import Any

import brute_force
import numpy as np
import pytest
import yaml
from brute_force import Gone, Presence, walk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusemodel.cascade import Cascade, load_cascade, parse_cascade
from fusemodel.cascade.extents import extents_of
from fusemodel.cascade.ir import is_start, iteration_ranks, reads, reduced_ranks
from fusemodel.cascade.workload import load_workload
from fusemodel.errors import InputError
from fusemodel.library import find
from fusemodel.mapping import Design, load_design, parse_design
from fusemodel.mapping.spec import Candidates, Group
from fusemodel.model import Evaluation, domain, evaluate
from fusemodel.model.compiled import compile_mapping
from fusemodel.model.evaluate import choices
from fusemodel.numerics import run

ARCH = """
name: three-levels
clock: 1 GHz
word: 8 bit                          # a byte, so that traffic is words
levels:
  dram: {kind: dram, bandwidth: 3 GB/s, access: 8 bit, read: 100 pJ, write: 120 pJ}
  l2:   {size: 1 MiB, bandwidth: 7 GB/s, access: 8 bit, read: 10 pJ, write: 11 pJ}
  l1:   {size: 1 MiB, access: 8 bit, read: 1 pJ, write: 2 pJ}
units:
  grid:
    shape: [2, 3]
    reduce: [x, y]
    ops: &ops {mac: {cycles: 1, energy: 1 pJ}, max: {cycles: 2}, exp: {cycles: 3}, divide: {cycles: 5}}
  line: {shape: [4], reduce: [x], ops: *ops}
"""


@cache
def folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="counts-"))
    (made / "arch.yaml").write_text(ARCH)
    return made


def design_of(cascade: Mapping[str, Any], mapping: Mapping[str, Any]) -> Design:
    text = yaml.safe_dump(dict(cascade), sort_keys=False)
    path = folder() / f"{hashlib.sha1(text.encode()).hexdigest()}.yaml"
    if not path.exists():
        path.write_text(text)
    full = {"name": "test", "cascade": str(path), "arch": str(folder() / "arch.yaml"), **mapping}
    return parse_design(yaml.safe_dump(full, sort_keys=False), str(folder() / "mapping.yaml"))


def check_walk(design: Design, sets: Mapping[str, int] | None = None) -> Evaluation:
    """The model's counts are those of the walk; where it says that some are bounds, they are."""
    found = evaluate(design, sets=sets)
    truth = walk(design, found.extents, [g.tiles for g in found.groups])
    word = design.arch.word_bytes
    bounded = any("upper bound" in n or "every point" in n for n in found.notes)

    def agree(model: float, walked: float, what: object, bound: bool = bounded) -> None:
        if bound:
            assert model >= walked - 1e-9, (what, model, walked)
        else:
            assert model == pytest.approx(walked, rel=1e-12), (what, model, walked)

    tensors = {(level, t) for level, held in found.traffic_bytes.items() for t in held} | set(truth.traffic)
    for level, tensor in sorted(tensors):
        entry = found.traffic_bytes[level].get(tensor, {"read": 0.0, "write": 0.0})
        walked = truth.traffic.get((level, tensor), [0, 0])
        agree(entry["read"], walked[0] * word, (level, tensor, "read"))
        agree(entry["write"], walked[1] * word, (level, tensor, "write"))
    for einsum in found.einsums:
        agree(einsum.points, truth.points[einsum.name], (einsum.name, "points"))
        agree(einsum.cycles, truth.cycles[einsum.name], (einsum.name, "cycles"))
    for group, held, cycles in zip(found.groups, truth.footprint, truth.schedule, strict=True):
        agree(group.schedule_cycles, cycles, (group.name, "schedule"))
        for (level, tensor), size in held.items():
            if level == "dram":
                continue
            # space is set aside for whole tiles, absent points included
            agree(
                group.footprint_bytes[level][tensor], size * word, (level, tensor, "footprint"), bounded or truth.absent
            )
    return found


# Random designs


@dataclass(frozen=True)
class Template:
    """A family of cascades: ranks with their largest extents, and equations."""

    ranks: dict[str, int | str]
    inputs: dict[str, list[str]]
    outputs: Any
    einsums: str
    more: dict[str, Any] = field(default_factory=dict)
    one_group: bool = False


TEMPLATES: dict[str, Template] = {
    "product": Template(
        {"m": 8, "n": 8, "k": 8}, {"A": ["m", "k"], "B": ["k", "n"]}, ["Z"], "Z[m, n] = A[m, k] * B[k, n]"
    ),
    "batched product": Template(
        {"h": 3, "m": 4, "n": 4, "k": 4}, {"A": ["m", "k"], "B": ["k", "n"]}, ["Z"], "Z[m, n] = A[m, k] * B[k, n]",
        {"batch": ["h"]},
    ),
    "two products": Template(
        {"p": 4, "k": 4, "m": 4, "n": 4}, {"A": ["p", "k"], "B": ["k", "m"], "C": ["m", "n"]}, ["Z"],
        "Y[p, m] = A[p, k] * B[k, m]\nZ[p, n] = Y[p, m] * C[m, n]",
    ),
    "both products wanted": Template(
        {"p": 4, "k": 4, "m": 4, "n": 3}, {"A": ["p", "k"], "B": ["k", "m"], "C": ["m", "n"]}, ["Z", "Y"],
        "Y[p, m] = A[p, k] * B[k, m]\nZ[p, n] = Y[p, m] * C[m, n]",
    ),
    "softmax": Template(
        {"p": 8, "m": 12}, {"X": ["p", "m"]}, ["A"],
        "G[p] = max[m](X[p, m])\nN[p, m] = exp(X[p, m] - G[p])\nD[p] = sum[m](N[p, m])\nA[p, m] = N[p, m] / D[p]",
    ),
    "causal scores": Template(
        {"p": 12, "m": 12, "e": 3}, {"Q": ["p", "e"], "K": ["m", "e"]}, ["S"],
        "S[p, m] = Q[p, e] * K[m, e] where m <= p"
    ),
    "causal attention": Template(
        {"p": 8, "m": 8, "e": 2}, {"Q": ["p", "e"], "K": ["m", "e"], "V": ["m", "e"]}, ["Z"],
        "S[p, m] = Q[p, e] * K[m, e] where m <= p\nG[p] = max[m](S[p, m])\nN[p, m] = exp(S[p, m] - G[p])\n"
        "Z[p, e] = N[p, m] * V[m, e]",
    ),
    "window": Template(
        {"p": 12, "m": 12, "w": 5}, {"Q": ["p"], "K": ["m"]}, ["Z"],
        "S[p, m] = Q[p] * K[m] where abs(m - p) <= W\nZ[p] = sum[m](S[p, m] * K[m])",
    ),
    "causal window": Template(
        {"p": 12, "m": 12, "w": 5}, {"Q": ["p"], "K": ["m"]}, ["Z"],
        "S[p, m] = Q[p] * K[m] where m <= p and p - m < W\nZ[p] = sum[m](S[p, m])",
    ),
    "two conditions": Template(
        {"p": 12, "m": 12}, {"Q": ["p"], "K": ["m"]}, ["Z"], "Z[p] = sum[m](Q[p] * K[m]) where m <= p and m + p < P"
    ),
    "block causal": Template(
        {"p": 12, "m": 12, "g": 5}, {"Q": ["p"], "K": ["m"]}, ["S"], "S[p, m] = Q[p] * K[m] where m // G <= p // G"
    ),
    "dilated": Template(
        {"p": 12, "m": 12}, {"Q": ["p"], "K": ["m"]}, ["S"], "S[p, m] = Q[p] * K[m] where (p - m) % 2 == 0 and m <= p"
    ),
    "convolution": Template(
        {"p": 8, "w": 4, "c": 2, "o": 3, "i": "p + w - 1"}, {"X": ["i", "c"], "F": ["o", "w", "c"]}, ["Z"],
        "Z[p, o] = X[p + w, c] * F[o, w, c]",
    ),
    "strided convolution": Template(
        {"p": 12, "w": 6, "i": "2 * p + w - 2"}, {"X": ["i"], "F": ["w"]}, ["Z"], "Z[p] = X[2 * p + w] * F[w]"
    ),
    "dilated convolution": Template(
        {"p": 12, "w": 6, "i": "2 * p + 3 * w - 4"}, {"X": ["i"], "F": ["w"]}, ["Z"], "Z[p] = X[2 * p + 3 * w] * F[w]"
    ),
    "padded convolution": Template(
        {"i": 12, "w": 6}, {"X": ["i"], "F": ["w"]}, ["Z"], "Z[i] = X[i + w - W // 2] * F[w]"
    ),
    "convolution in 2-D": Template(
        {"p": 4, "q": 4, "v": 2, "w": 3}, {"X": ["p", "q"], "F": ["v", "w"]}, ["Z"],
        "Z[p, q] = X[p + v - 1, q + w - 1] * F[v, w]",
    ),
    "stencil": Template({"p": 12}, {"X": ["p"]}, ["Y"], "Y[p] = X[p] + coalesce(X[p - 1], 0)"),
    "wide stencil": Template(
        {"p": 12, "c": 2}, {"X": ["p", "c"]}, ["Y"], "Y[p, c] = X[p - 1, c] + X[p + 2, c] * X[p, c]"
    ),
    "stencil twice": Template(
        {"p": 12, "c": 2}, {"X": ["p", "c"]}, ["Y", "Z"], "Y[p, c] = X[p, c] + X[p - 1, c]\nZ[p] = max[c](X[p + 1, c])"
    ),
    "shift": Template(
        {"p": 8, "c": 3}, {"X": ["p", "c"], "A": ["c"]}, ["Z"],
        "Y[p, c] = X[p, c] * A[c]\nZ[p, c] = Y[p, c] + coalesce(Y[p - 1, c], 0)",
    ),
    "two convolutions": Template(
        {"p": 8, "w": 2, "v": 2}, {"X": ["p"], "F": ["w"], "G": ["v"]}, ["Z"],
        "Y[p] = X[p - w] * F[w]\nZ[p] = Y[p - v] * G[v]",
    ),
    "gram": Template({"p": 8, "k": "p", "e": 3}, {"X": ["p", "e"]}, ["Z"], "Z[p, k] = X[p, e] * X[k, e]"),
    "triangle": Template(
        {"p": 8, "k": "p", "e": 3}, {"X": ["p", "e"]}, ["Z"], "Z[p, k] = X[p, e] * X[k, e] where k < p"
    ),
    "diagonal": Template({"p": 12, "q": "p"}, {"X": ["p", "q"], "Y": ["p"]}, ["Z"], "Z[p] = X[p, p] * Y[p]"),
    "grouped heads": Template(
        {"h": 12, "g": 5, "r": "ceil(h / g)", "p": 3, "m": 3}, {"Q": ["h", "p"], "K": ["r", "m"]}, ["S"],
        "S[h, p, m] = Q[h, p] * K[h // G, m]",
    ),
    "elementwise": Template(
        {"p": 6, "m": 6}, {"A": ["p", "m"], "B": ["m"], "C": ["p"]}, ["Z"],
        "X[p, m] = A[p, m] * B[m]\nY[p, m] = X[p, m] + A[p, m]\nZ[p, m] = max(X[p, m], Y[p, m] * C[p])",
    ),
    "mean": Template(
        {"p": 6, "m": 8}, {"A": ["p", "m"]}, ["Z"], "M1[p] = mean[m](A[p, m])\nZ[p, m] = A[p, m] - M1[p]",
    ),
    "scaled": Template(
        {"p": 4, "m": 4, "e": 4}, {"Q": ["p", "e"], "K": ["m", "e"]}, ["S"], "S[p, m] = Q[p, e] * K[m, e] / E"
    ),
    "ragged": Template(
        {"m": 10, "m0": 4, "m1": "ceil(m / m0)", "p": 4}, {"Q": ["p"], "K": ["m"]}, ["Z"],
        "S[m1, m0, p] = Q[p] * K[m1, m0]\nL[m1, p] = max[m0](S[m1, m0, p])\nZ[p] = max[m1](L[m1, p])",
        {"split": {"m": ["m1", "m0"]}},
    ),
    "ragged and whole": Template(
        {"m": 10, "m0": 4, "m1": "ceil(m / m0)", "p": 4}, {"Q": ["p"], "K": ["m"]}, ["Z", "L"],
        "S[m, p] = Q[p] * K[m]\nL[m1, p] = max[m0](S[m1, m0, p])\nZ[p] = max[m](S[m, p])",
        {"split": {"m": ["m1", "m0"]}},
    ),
    "ragged causal": Template(
        {"m": 10, "m0": 4, "m1": "ceil(m / m0)", "p": 10}, {"Q": ["p"], "K": ["m"]}, ["Z"],
        "S[m1, m0, p] = Q[p] * K[m1, m0] where m1 * M0 + m0 <= p\nZ[p] = max[m1, m0](S[m1, m0, p])",
        {"split": {"m": ["m1", "m0"]}},
    ),
    "one pass": Template(
        {"m": 6, "m0": 3, "m1": "ceil(m / m0)", "p": 4, "e": 2}, {"Q": ["p", "e"], "K": ["m", "e"]}, ["Z"],
        "S[m1, m0, p] = Q[p, e] * K[m1, m0, e]\nL[m1, p] = max[m0](S[m1, m0, p])\nR[0, p] = -inf\n"
        "R[m1+1, p] = max(R[m1, p], L[m1, p])\nN[m1, m0, p] = exp(S[m1, m0, p] - R[m1+1, p])\n"
        "B[m1, p] = sum[m0](N[m1, m0, p])\nD[0, p] = 0\n"
        "D[m1+1, p] = D[m1, p] * exp(R[m1, p] - R[m1+1, p]) + B[m1, p]\n"
        "Z[p] = D[M1, p] / R[M1, p]",
        {"split": {"m": ["m1", "m0"]}}, one_group=True,
    ),
    "running": Template(
        {"i": 5, "p": 4}, {"X": ["i", "p"]}, ["R"], "R[0, p] = 0\nR[i+1, p] = R[i, p] + X[i, p]", one_group=True
    ),
}  # fmt: skip

Draw = Callable[[Any], Any]


def sizes(most: int) -> list[int]:
    """Extents, those that divide well more often."""
    return [n for n in (4, 6, 8, 12, 4, 6, 8, 2, 3, 5, 9, 10, 12, 1) if n <= most]


@st.composite
def cascades(draw: Draw) -> dict[str, Any]:
    name = draw(st.sampled_from(sorted(TEMPLATES)))
    template = TEMPLATES[name]
    ranks = {r: n if isinstance(n, str) else draw(st.sampled_from(sizes(n))) for r, n in template.ranks.items()}
    return {
        "name": name, "ranks": ranks, "inputs": template.inputs, "outputs": template.outputs,
        "einsums": template.einsums + "\n", **template.more,
    }  # fmt: skip


@st.composite
def designs(draw: Draw) -> tuple[dict[str, Any], dict[str, Any]]:
    """A cascade and a mapping of it; some mappings are refused."""
    raw = draw(cascades())
    text = yaml.safe_dump(raw, sort_keys=False)
    path = folder() / f"{hashlib.sha1(text.encode()).hexdigest()}.yaml"
    path.write_text(text)
    cascade = load_cascade(str(path))
    extents = extents_of(cascade)
    einsums = [e for e in cascade.explicit if not is_start(e, cascade.tensors[e.name])]
    groups: list[list[Any]] = [[]]
    for einsum in einsums:
        if groups[-1] and not TEMPLATES[raw["name"]].one_group and draw(st.integers(0, 3)) == 0:
            groups.append([])
        groups[-1].append(einsum)
    return raw, {"groups": [draw(grouped(cascade, extents, g)) for g in groups]}


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


@st.composite
def tile_sizes(draw: Draw, extent: int, ragged: bool) -> int:
    """Divisors, and a third of the time any size, one larger than the rank among them."""
    if ragged and draw(st.integers(0, 2)) == 0:
        return draw(st.integers(1, extent + 1))
    return draw(st.sampled_from(divisors(extent)))


@st.composite
def tiles(draw: Draw, rank: str, extent: int, ragged: bool) -> tuple[dict[str, Any], list[str]]:
    """Entries of ``tile`` for one rank, and its leaves. ``ragged``: the last tile may be smaller than the others."""
    kind = draw(st.sampled_from(["whole", "two", "two", "three", "outer again"]))
    if kind == "whole":
        return {}, [rank]
    a, b, c = (f"{rank}{x}" for x in "abc")
    size = draw(tile_sizes(extent, ragged))
    if kind == "two":
        return {rank: [a, b], b: size}, [a, b]
    inner = draw(tile_sizes(-(-extent // size), ragged))
    if kind == "three":
        return {rank: [a, b, c], b: inner, c: size}, [a, b, c]
    return {rank: [f"{rank}o", c], c: size, f"{rank}o": [a, b], b: inner}, [a, b, c]


@st.composite
def grouped(draw: Draw, cascade: Cascade, extents: Mapping[str, int], einsums: Sequence[Any]) -> dict[str, Any]:
    leaves: dict[str, list[str]] = {}
    tile: dict[str, Any] = {}
    for rank in dict.fromkeys(r for e in einsums for r in iteration_ranks(e)):
        for part in cascade.split.get(rank, (rank,)):
            if part not in leaves:
                inner = any(part == pair[1] for pair in cascade.split.values())
                entries, leaves[part] = draw(tiles(part, extents[part], not inner))
                tile |= entries
        if rank in cascade.split:
            leaves[rank] = [x for part in cascade.split[rank] for x in leaves[part]]
    of = {e.name: list(dict.fromkeys(x for r in iteration_ranks(e) for x in leaves[r])) for e in einsums}
    waits = {x for e in einsums[:-1] for r in reduced_ranks(e) for x in leaves[r]}
    every = list(dict.fromkeys(x for own in of.values() for x in own))
    shared = [
        x
        for x in draw(st.permutations(every))
        if draw(st.integers(0, 1)) and (x not in waits or not draw(st.integers(0, 9)))
    ]
    bind: dict[str, Any] = {}
    inner: list[str] = []
    pending = [e.name for e in einsums]
    while pending:
        first = pending.pop(0)
        bound = [first]
        while pending and set(of[pending[0]]) == set(of[first]) and draw(st.booleans()):
            bound.append(pending.pop(0))
        entry, own = draw(bindings([x for x in of[first] if x not in shared]))
        inner += own
        bind[", ".join(bound)] = entry
    used = dict.fromkeys([*(a.tensor for e in einsums for a in reads(e)), *(e.name for e in einsums)])
    keep: dict[str, Any] = {}
    for level in ("dram", "l2", "l1"):
        held = {}
        for tensor in used:
            if draw(st.integers(0, 9)) < (1 if level == "dram" else 4):
                # mostly where every Einsum finds it
                near = (
                    [*shared, *shared, "all"] if tensor in of and draw(st.integers(0, 2)) else [*shared, *inner, "all"]
                )
                under = draw(st.sampled_from(near))
                held[tensor] = draw(keeps(under, level != "dram"))
        if held:
            keep[level] = held
    stages: list[list[str]] = [[]]
    for e in einsums:
        if stages[-1] and draw(st.booleans()):
            stages.append([])
        stages[-1].append(e.name)
    return {
        "tile": tile, "loops": shared, "keep": keep, "bind": bind, "schedule": stages,
        "interleave": draw(st.booleans()),
    }  # fmt: skip


@st.composite
def bindings(draw: Draw, left: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    unit, dimensions = draw(st.sampled_from([("grid", ["x", "y"]), ("line", ["x"])]))
    spatial: dict[str, list[str]] = {}
    temporal = []
    for leaf in draw(st.permutations(left)):
        if draw(st.integers(0, 2)) == 0:
            spatial.setdefault(draw(st.sampled_from(dimensions)), []).append(leaf)
        else:
            temporal.append(leaf)
    listed = temporal[: draw(st.integers(0, len(temporal)))]
    rest = [x for x in left if x in temporal]
    return {"unit": unit, "spatial": spatial, "loops": listed, "pipelined": draw(st.booleans())}, listed or rest


@st.composite
def keeps(draw: Draw, under: str, may_spill: bool) -> Any:
    if draw(st.integers(0, 2)):
        return under
    kept: dict[str, Any] = {"under": under, "copies": draw(st.integers(1, 3))}
    if may_spill:
        kept |= {"spill": draw(st.sampled_from([False, 0.25, 0.5, 1.0]))}
    return kept | ({"share": "block"} if draw(st.booleans()) else {})


@pytest.mark.parametrize(
    ("witnesses", "examples"), [(domain.MAX_WITNESSES, 800), (0, 300)], ids=["small", "as if large"]
)
def test_random_designs(monkeypatch: pytest.MonkeyPatch, witnesses: int, examples: int) -> None:
    """The counts are exact; where spaces are too large to look for gaps between tiles, some are bounds and say so."""
    monkeypatch.setattr(domain, "MAX_WITNESSES", witnesses)
    seen = {"exact": 0, "bounded": 0, "refused": 0, "ragged": 0}

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(designs())
    def check(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
        try:
            design = design_of(*pair)
            evaluate(design)
        except InputError:
            seen["refused"] += 1
            return
        found = check_walk(design)
        seen["bounded" if found.notes else "exact"] += 1
        parts = [(r, ps, g) for g in pair[1]["groups"] for r, ps in g["tile"].items() if isinstance(ps, list)]
        inner = [(found.extents[r], [g["tile"][p] for p in ps[1:]]) for r, ps, g in parts if r in found.extents]
        seen["ragged"] += any(extent % prod(sizes) for extent, sizes in inner)

    check()
    assert seen["ragged"] >= 0.2 * examples
    assert seen["exact"] >= 0.6 * examples
    assert seen["bounded"] == 0 or witnesses == 0


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_presence_is_that_of_the_numerics(name: str) -> None:
    """What the walk takes for present is what executing the cascade makes."""
    template = TEMPLATES[name]
    raw = {
        "name": name, "ranks": {r: n if isinstance(n, str) else min(n, 7) for r, n in template.ranks.items()},
        "inputs": template.inputs, "outputs": template.outputs, "einsums": template.einsums + "\n", **template.more,
    }  # fmt: skip
    cascade = parse_cascade(yaml.safe_dump(raw, sort_keys=False))
    extents = extents_of(cascade)
    presence = Presence(cascade, extents)
    result = run(cascade, extents=extents)
    for tensor, values in result.tensors.items():
        if tensor not in cascade.inputs:
            there = np.broadcast_to(result.present.get(tensor, np.True_), values.shape)
            for at in np.ndindex(values.shape):
                assert there[at] == all(holds for _, holds in presence.of_element(tensor, at)), (tensor, at)


# The library's designs, made small


@cache
def small(kind: str, name: str) -> str:
    """A library file with tiles and arrays of 2 in place of 256."""
    text = find(kind, name).read_text().replace("256", "2")
    for arch in ("flat-cloud", "fusemax-cloud"):
        if f"arch: {arch}" in text:
            text = text.replace(f"arch: {arch}", f"arch: {small('archs', arch)}")
    text = re.sub(r"use: ([a-z-]+)", lambda m: f"use: {small('mappings', m[1])}", text)
    text = text.replace("2, 128, 64, 32", "4, 2, 1").replace("[64]", "[2]")
    path = folder() / f"{name}.yaml"
    path.write_text(text)
    return str(path)


def variants(design: Design) -> Iterator[Design]:
    """Each variant of each group, beside the first ones of the others; nothing spills."""

    def whole(group: Group) -> Group:
        return replace(group, keeps=tuple(replace(k, spill=False) for k in group.keeps))

    first = tuple(Candidates((whole(c.groups[0]),), c.minimise) for c in design.groups)
    yield replace(design, groups=first)
    for i, candidates in enumerate(design.groups):
        for group in candidates.groups[1:]:
            other = Candidates((whole(group),), candidates.minimise)
            yield replace(design, groups=(*first[:i], other, *first[i + 1 :]))


@pytest.mark.parametrize("name", ["fusemax", "fusemax-arch", "fusemax-cascade", "flat", "flat-best", "unfused"])
@pytest.mark.parametrize("sizes", [{"p": 8, "m": 6, "p1": 2}, {"p": 4, "m": 8, "e": 1}], ids=str)
def test_library_of_attention(name: str, sizes: dict[str, int]) -> None:
    for design in variants(load_design(small("mappings", name))):
        sets = {"b": 2, "h": 1, "e": 2, "f": 2, "m0": 2, **sizes}
        group = design.groups[0].groups[0]
        known = {*design.cascade.ranks, *(p for ps in group.parts.values() for p in ps)}
        check_walk(design, {r: n for r, n in sets.items() if r in known})


def test_library_of_layers() -> None:
    for design in variants(load_design(small("mappings", "linear-fusemax"))):
        check_walk(design, {"b": 2, "h": 2, "p": 4, "d": 4, "e": 2, "f": 2, "c": 4, "s": 4, "g": 4})


# Formulas derived by hand

PRODUCT = {
    "name": "product", "ranks": {"m": 512, "n": 384, "k": 640}, "inputs": {"A": ["m", "k"], "B": ["k", "n"]},
    "outputs": ["Z"], "einsums": "Z[m, n] = A[m, k] * B[k, n]\n",
}  # fmt: skip
M, N, K = 512, 384, 640


def product_of(
    loops: list[str], spatial: dict[str, str], keep: Mapping[str, Any] | None = None, **tile: int
) -> Evaluation:
    tiling = {r: [f"{r}1", f"{r}0"] for r in "mnk" if f"{r}0" in tile}
    group = {
        "tile": {**tiling, **tile}, "loops": loops, "keep": dict(keep or {}),
        "bind": {"Z": {"unit": "grid", "spatial": spatial}},
    }  # fmt: skip
    return evaluate(design_of(PRODUCT, {"groups": [group]}))


def traffic(found: Evaluation, level: str) -> dict[str, tuple[float, float]]:
    return {t: (v["read"], v["write"]) for t, v in found.traffic_bytes[level].items()}


def test_output_stationary() -> None:
    found = product_of(["m1", "n1", "k"], {"x": "m0", "y": "n0"}, m0=16, n0=8)
    assert traffic(found, "dram") == {"A": (M * K * (N // 8), 0), "B": (K * N * (M // 16), 0), "Z": (0, M * N)}
    assert found.einsums[0].points == M * N * K
    assert found.cycles == max(
        M * N * K // (16 * 8) * (16 // 2) * 3, sum(found.traffic_bytes["dram"]["A"].values()) / 3
    )


def test_weight_stationary() -> None:
    found = product_of(["n1", "k1", "m"], {"x": "n0", "y": "k0"}, n0=8, k0=32)
    k1 = K // 32
    assert traffic(found, "dram") == {"A": (M * K * (N // 8), 0), "B": (K * N, 0), "Z": (M * N * (k1 - 1), M * N * k1)}


def test_input_stationary() -> None:
    found = product_of(["m1", "k1", "n"], {"x": "m0", "y": "k0"}, m0=16, k0=32)
    k1 = K // 32
    assert traffic(found, "dram") == {"A": (M * K, 0), "B": (K * N * (M // 16), 0), "Z": (M * N * (k1 - 1), M * N * k1)}


def test_a_block_of_outputs_stays_in_the_buffer() -> None:
    found = product_of(["m1", "n1", "k1"], {"x": "m0"}, {"l1": {"Z": "n1", "A": "k1", "B": "k1"}}, m0=16, n0=8, k0=32)
    assert traffic(found, "dram") == {"A": (M * K * (N // 8), 0), "B": (K * N * (M // 16), 0), "Z": (0, M * N)}
    k1 = K // 32
    assert traffic(found, "l1") == {
        "A": (M * K * N, M * K * (N // 8)),  # n0 and k0 run inside: a word of A goes to the array for each n
        "B": (K * N * (M // 16), K * N * (M // 16)),
        # a sum goes to the buffer after every k1 and comes back before the next; and the block leaves once
        "Z": (M * N * (k1 - 1) + M * N, M * N * k1),
    }
    assert found.groups[0].footprint_bytes["l1"] == {"Z": 16 * 8, "A": 16 * 32, "B": 32 * 8}


def test_whole_operands_on_chip() -> None:
    found = product_of(["k", "m", "n"], {}, {"l2": {"A": "all", "B": "all", "Z": "all"}})
    assert traffic(found, "dram") == {"A": (M * K, 0), "B": (K * N, 0), "Z": (0, M * N)}
    assert traffic(found, "l2")["Z"] == (M * N * (K - 1) + M * N, M * N * K)


@pytest.mark.parametrize("seq", [1024, 16384, 2**20])
def test_fusemax_traffic(seq: int) -> None:
    """Q and AV once, K and V once for each block of 256 * P1 rows."""
    found = evaluate(load_design("fusemax"), load_workload("bert"), seq)
    b, h, e, f = (found.extents[r] for r in "bhef")
    p1 = found.groups[0].tiles["p1"]
    assert found.dram_bytes == 2 * b * h * (seq * e + seq * f + seq // (256 * p1) * seq * (e + f))


@pytest.mark.parametrize("seq", [64, 4096, 2**17])
def test_causal_points(seq: int) -> None:
    raw = {
        "name": "causal", "ranks": {"p": seq, "m": seq}, "inputs": {"Q": ["p"], "K": ["m"]}, "outputs": ["S"],
        "einsums": "S[p, m] = Q[p] * K[m] where m <= p\n",
    }  # fmt: skip
    group = {
        "tile": {"p": ["p1", "p0"], "p0": 8, "m": ["m1", "m0"], "m0": 4}, "loops": ["p1", "m1"],
        "keep": {"l1": {"K": "m1", "S": "m1"}}, "bind": {"S": {"unit": "grid", "spatial": {"x": "p0", "y": "m0"}}},
    }  # fmt: skip
    found = evaluate(design_of(raw, {"groups": [group]}))
    assert found.einsums[0].points == seq * (seq + 1) // 2
    blocks = sum(2 * (p1 + 1) for p1 in range(seq // 8))  # tiles of 8 x 4 with a point below the diagonal
    assert found.einsums[0].cycles == blocks * 4 * 2
    assert found.traffic_bytes["dram"]["K"]["read"] == blocks * 4
    assert found.traffic_bytes["dram"]["S"]["write"] == seq * (seq + 1) // 2


# What cannot be counted, or cannot be


def test_gathers_are_bounded_and_say_so() -> None:
    raw = {
        "name": "gather", "ranks": {"p": 12, "s": 4, "m": 6, "e": 2}, "inputs": {"I": ["s", "p"], "K": ["m", "e"]},
        "outputs": ["Z"], "einsums": "Z[p, e] = sum[s](K[I[s, p], e])\n",
    }  # fmt: skip
    group = {"loops": ["p"], "keep": {"l1": {"K": "p"}}, "bind": {"Z": {"unit": "line"}}}
    found = evaluate(design_of(raw, {"groups": [group]}))
    assert found.traffic_bytes["dram"]["K"]["read"] == 12 * 4 * 2
    assert found.notes == ["Z: the traffic of K is an upper bound"]


def test_scatters_are_bounded_and_say_so() -> None:
    raw = {
        "name": "scatter", "ranks": {"p": 12, "m": 3}, "inputs": {"I": ["p"], "X": ["p"]},
        "outputs": {"Z": ["m"]}, "einsums": "Z[I[p]] = sum[p](X[p])\n",
    }  # fmt: skip
    group = {"loops": ["p"], "bind": {"Z": {"unit": "line"}}}
    found = evaluate(design_of(raw, {"groups": [group]}))
    assert found.traffic_bytes["dram"]["Z"] == {"read": 12, "write": 12}
    assert found.notes == ["Z: the traffic of Z is an upper bound"]


def test_selections_write_what_they_select() -> None:
    raw = {
        "name": "topk", "ranks": {"p": 5, "m": 8, "s": 3}, "inputs": {"X": ["p", "m"]}, "outputs": ["I"],
        "einsums": "I[s, p] = topk[m -> s](X[p, m])\n",
    }  # fmt: skip
    group = {"loops": ["p"], "keep": {"l1": {"I": "p"}}, "bind": {"I": {"unit": "line", "loops": ["m"]}}}
    found = evaluate(design_of(raw, {"groups": [group]}))
    assert found.traffic_bytes["dram"]["I"] == {"read": 0, "write": 15}
    assert found.groups[0].footprint_bytes["l1"]["I"] == 3
    outside = {"loops": ["m", "p"], "bind": {"I": {"unit": "line"}}}
    found = evaluate(design_of(raw, {"groups": [outside]}))
    assert found.traffic_bytes["dram"]["I"] == {"read": 7 * 15, "write": 8 * 15}


def test_conditions_on_data_are_charged_in_full_and_said() -> None:
    raw = {
        "name": "masked", "ranks": {"p": 4, "m": 6}, "inputs": {"X": ["p", "m"], "KEEP": ["p", "m"]}, "outputs": ["Z"],
        "einsums": "Z[p] = sum[m](X[p, m]) where KEEP[p, m] and m <= p\n",
    }  # fmt: skip
    found = evaluate(design_of(raw, {"groups": [{"bind": {"Z": {"unit": "line"}}}]}))
    assert found.einsums[0].points == 10
    assert found.notes == ["Z: `KEEP[p, m]` depends on data; every point is charged"]


def test_no_point_present() -> None:
    raw = {
        "name": "empty", "ranks": {"p": 4, "m": 4}, "inputs": {"X": ["p", "m"]}, "outputs": ["Z"],
        "einsums": "Z[p, m] = X[p, m] + 1 where m > p + M\n",
    }  # fmt: skip
    found = evaluate(design_of(raw, {"groups": [{"bind": {"Z": {"unit": "line"}}}]}))
    assert (found.cycles, found.dram_bytes, found.utilization) == (0, 0, {"grid": 0, "line": 0})


def test_conditions_pass_through_reductions() -> None:
    """A score that is masked is no score: nothing is computed of it further down."""
    raw = {
        "name": "causal", "ranks": {"p": 64, "m": 64, "e": 8}, "inputs": {"Q": ["p", "e"], "K": ["m", "e"]},
        "outputs": ["D"],
        "einsums": "S[p, m] = Q[p, e] * K[m, e] where m <= p\nG[p] = max[m](S[p, m])\n"
        "N[p, m] = exp(S[p, m] - G[p])\nD[p] = sum[m](N[p, m])\n",
    }  # fmt: skip
    found = check_walk(design_of(raw, {"groups": [{"loops": ["p"], "bind": {"S, G, N, D": {"unit": "line"}}}]}))
    pairs = 64 * 65 // 2
    assert {e.name: e.points for e in found.einsums} == {"S": 8 * pairs, "G": pairs, "N": pairs, "D": pairs}


def test_what_follows_an_absent_step_is_absent() -> None:
    raw = {
        "name": "running", "ranks": {"i": 6, "p": 4}, "inputs": {"X": ["i", "p"]}, "outputs": ["R"],
        "einsums": "R[0, p] = 0\nR[i+1, p] = R[i, p] + X[i + 2, p]\n",
    }  # fmt: skip
    found = check_walk(design_of(raw, {"groups": [{"loops": ["i"], "bind": {"R": {"unit": "line"}}}]}))
    assert found.einsums[0].points == 4 * 4
    assert found.notes == []


def test_the_first_present_of_several() -> None:
    raw = {
        "name": "joined", "ranks": {"n": 9, "m": 3, "g": 4}, "inputs": {"K": ["m"], "G1": ["g"]}, "outputs": ["Z"],
        "einsums": "Z[n] = coalesce(K[n], G1[n - M])\n",
    }  # fmt: skip
    found = check_walk(design_of(raw, {"groups": [{"bind": {"Z": {"unit": "line"}}}]}))
    assert found.traffic_bytes["dram"]["K"]["read"] == 3
    assert found.traffic_bytes["dram"]["G1"]["read"] == 4
    assert found.einsums[0].points == 7
    assert found.notes == []
    ends = {**raw, "einsums": "Z[n] = coalesce(K[n], G1[n - M], 0)\n"}
    assert check_walk(design_of(ends, {"groups": [{"bind": {"Z": {"unit": "line"}}}]})).notes == []


SOFTMAX = {
    "name": "softmax", "ranks": {"p": 8, "m": 12}, "inputs": {"X": ["p", "m"]}, "outputs": ["A"],
    "einsums": TEMPLATES["softmax"].einsums + "\n",
}  # fmt: skip


def test_a_tile_that_is_gone_is_refused() -> None:
    """The weights are divided by their sum in a second pass over m: a tile of them under m has been replaced."""
    group = {
        "tile": {"m": ["m1", "m0"], "m0": 4}, "loops": ["p"], "keep": {"l1": {"N": "m1"}},
        "bind": {"G, N, D, A": {"unit": "line", "loops": ["m1"]}},
    }  # fmt: skip
    with pytest.raises(InputError, match="'A' takes 'N' from 'l1', where the tile under 'm1' has been replaced"):
        evaluate(design_of(SOFTMAX, {"groups": [group]}))
    found = check_walk(design_of(SOFTMAX, {"groups": [{**group, "keep": {"l1": {"N": "p"}}}]}))
    assert found.traffic_bytes["l1"]["N"] == {"read": 2 * 8 * 12, "write": 8 * 12}
    found = check_walk(design_of(SOFTMAX, {"groups": [{**group, "keep": {"l1": {"N": "m1"}, "dram": {"N": "p"}}}]}))
    assert found.traffic_bytes["dram"]["N"] == {"read": 8 * 12, "write": 8 * 12}


CHAINED = {
    "name": "chained", "ranks": {"p": 8, "m": 4, "e": 6}, "inputs": {"Q": ["p", "e"], "K": ["m", "e"], "X": ["p", "m"]},
    "outputs": ["Z"], "einsums": "S[p, m] = sum[e](Q[p, e] * K[m, e])\nZ[p, m] = S[p, m] * X[p, m]\n",
}  # fmt: skip


def chained(keep: dict[str, Any], e0: int, loops: Sequence[str] = ("e1", "p1")) -> Design:
    """Scores and what is made of them, in tiles of p inside tiles of e, which only the scores have."""
    group = {
        "tile": {"p": ["p1", "p0"], "p0": 2, "e": ["e1", "e0"], "e0": e0}, "loops": list(loops), "keep": keep,
        "bind": {"S": {"unit": "grid"}, "Z": {"unit": "line"}},
    }  # fmt: skip
    return design_of(CHAINED, {"groups": [group]})


def test_a_partial_sum_that_left_is_not_there() -> None:
    """The scores of a tile of p are complete only after the last tile of e, when other tiles of p came in between."""
    with pytest.raises(InputError, match="'Z' takes 'S' from 'l1', where the tile under 'p1' has been replaced") as e:
        evaluate(chained({"l1": {"S": "p1"}}, 2))
    assert "loop 'e1' is around one of the two only" in str(e.value)
    for fine in (chained({"l1": {"S": "p1"}}, 6), chained({"l1": {"S": "p1"}}, 2, ["p1", "e1"])):
        assert check_walk(fine).traffic_bytes["l1"]["S"]["write"] in (8 * 4, 3 * 8 * 4)
    found = check_walk(chained({"l1": {"S": "all"}}, 2))  # all tiles of p stay
    assert found.groups[0].footprint_bytes["l1"]["S"] == 8 * 4
    found = check_walk(chained({"l1": {"S": "p1"}, "dram": {"S": "all"}}, 2))  # and here they come back
    assert found.traffic_bytes["dram"]["S"] == {"read": (2 + 1) * 8 * 4, "write": 3 * 8 * 4}


@pytest.mark.parametrize("keep", [{"l1": {"S": "p1"}}, {"l1": {"S": "p1"}, "dram": {"S": "all"}}], ids=["gone", "back"])
def test_tile_sizes_at_which_a_partial_sum_leaves(keep: dict[str, Any]) -> None:
    """In batches and among candidates as one by one."""
    group = {
        "tile": {"p": ["p1", "p0"], "p0": "any", "e": ["e1", "e0"], "e0": "any"}, "loops": ["e1", "p1"], "keep": keep,
        "bind": {"S": {"unit": "grid"}, "Z": {"unit": "line"}}, "minimise": ["energy"],
    }  # fmt: skip
    design = design_of(CHAINED, {"groups": [group]})
    pairs = [*product(divisors(8), divisors(6))]
    p0, e0 = map(list, zip(*pairs, strict=True))
    found = compile_mapping(design).evaluate(sets={"p0": p0, "e0": e0})
    energies = []
    for i, (p, e) in enumerate(pairs):
        legal = "dram" in keep or p == 8 or e == 6
        assert found["fits"][i] == legal
        if legal:
            energies.append(evaluate(design, sets={"p0": p, "e0": e}).energy_j)
            assert found["energy_j"][i] == pytest.approx(energies[-1], rel=1e-12)
    assert evaluate(design).energy_j == pytest.approx(min(energies), rel=1e-12)


@pytest.mark.parametrize(("e0", "words"), [(6, 2 * 4), (2, 8 * 4)])
def test_partial_sums_in_registers_are_there_for_every_tile(e0: int, words: int) -> None:
    design = chained({}, e0)
    _, (chosen,) = choices(design)
    assert check_walk(design).traffic_bytes["dram"].keys() == {"Q", "K", "X", "Z"}
    assert chosen.plan.passed_on["S"].words(chosen.sizes) == words


def test_what_loops_around_one_einsum_replace() -> None:
    """Every order of shared loops, with scores and a mask made outside the loop over e kept in many ways: counted as
    walked, and refused where the walk does not find what it needs."""
    raw = {
        **CHAINED, "inputs": {**CHAINED["inputs"], "W": ["p"]},
        "einsums": "Y[p] = W[p] * 2\nS[p, m] = sum[e](Q[p, e] * K[m, e] * Y[p])\nZ[p, m] = S[p, m] * Y[p] + X[p, m]\n",
    }  # fmt: skip
    held: list[dict[str, str]] = [{}, {"l1": "p1"}, {"l1": "p1", "dram": "all"}, {"l1": "m", "l2": "p1"}]
    held += [{"l2": "all"}, {"l1": "e1"}, {"l1": "p1", "l2": "e1"}]
    bind = {"Y": {"unit": "line"}, "S": {"unit": "grid"}, "Z": {"unit": "line"}}
    seen = {"counted": 0, "refused": 0, "apart": 0}
    for loops in permutations(["e1", "p1", "m"]):
        for s, y, (p0, e0) in [*product(held, held, ((2, 2), (2, 6), (8, 2)))][::4]:
            keep = {
                level: {t: of[level] for t, of in (("S", s), ("Y", y)) if level in of} for level in ("dram", "l2", "l1")
            }
            tile = {"p": ["p1", "p0"], "p0": p0, "e": ["e1", "e0"], "e0": e0}
            group = {"tile": tile, "loops": list(loops), "keep": {k: v for k, v in keep.items() if v}, "bind": bind}
            design = design_of(raw, {"groups": [group]})
            sizes = {**extents_of(design.cascade), "p1": 8 // p0, "p0": p0, "e1": 6 // e0, "e0": e0}
            try:
                walk(design, extents_of(design.cascade), [sizes])
            except Gone:
                seen["refused"] += 1
                with pytest.raises(InputError, match="has been replaced"):
                    evaluate(design)
                continue
            seen["counted"] += 1
            seen["apart"] += "dram" in keep and e0 < 6 and p0 < 8
            check_walk(design)
    assert min(seen.values()) > 20


def test_two_passes_of_one_nest_bring_an_input_twice() -> None:
    group = {
        "tile": {"m": ["m1", "m0"], "m0": 4}, "loops": ["p"], "keep": {"l1": {"X": "m1", "N": "p"}},
        "bind": {"G, N, D, A": {"unit": "line", "loops": ["m1"]}},
    }  # fmt: skip
    found = check_walk(design_of(SOFTMAX, {"groups": [group]}))
    assert found.traffic_bytes["dram"]["X"]["read"] == 2 * 8 * 12


@pytest.mark.parametrize(
    ("read", "keep", "fits"),
    [
        ("Y[p]", {}, True),
        ("Y[p - 1]", {}, False),  # gone with the step
        ("Y[p - 1]", {"l1": {"Y": "h"}}, True),
        ("Y[p + 1]", {"l1": {"Y": "h"}}, False),  # not made yet
        ("Y[0]", {"l1": {"Y": "h"}}, False),
    ],
)
def test_fusion_of_shifted_reads(read: str, keep: dict[str, Any], fits: bool) -> None:
    raw = {
        "name": "shifted", "ranks": {"h": 2, "p": 8}, "batch": ["h"], "inputs": {"X": ["p"]}, "outputs": ["Z"],
        "einsums": f"Y[p] = X[p] * 2\nZ[p] = X[p] + {read}\n",
    }  # fmt: skip
    group = {"loops": ["h", "p"], "keep": keep, "bind": {"Y": {"unit": "line"}, "Z": {"unit": "grid"}}}
    design = design_of(raw, {"groups": [group]})
    if fits:
        check_walk(design)
    else:
        with pytest.raises(InputError, match=r"'Z' reads Y\[.*\] inside the shared loop 'p'"):
            evaluate(design)


#: What conditions and indices are made of besides linear forms.
PIECES: dict[str, Template] = {
    "window and first keys": Template(
        {"p": 12, "m": 12, "w": 5}, {"Q": ["p"], "K": ["m"]}, ["Z"],
        "S[p, m] = Q[p] * K[m] where m <= p and (p - m < W or m < 2)\nZ[p] = sum[m](S[p, m] * K[m])",
    ),
    "outside a band": Template(
        {"p": 12, "m": 12}, {"Q": ["p"], "K": ["m"]}, ["S"], "S[p, m] = Q[p] * K[m] where abs(m - p) > 2 or m == 0"
    ),
    "unequal": Template(
        {"p": 12, "m": 9}, {"Q": ["p"], "K": ["m"]}, ["S"],
        "S[p, m] = Q[p] * K[m] where m != p and not (m < p and m % 3 == 0)",
    ),
    "hyperbola": Template({"p": 12, "m": 9}, {"Q": ["p"], "K": ["m"]}, ["S"], "S[p, m] = Q[p] * K[m] where m * p < 12"),
    "window moved inside": Template(
        {"p": 12, "w": 5}, {"Q": ["p"], "K": ["p"]}, ["S"],
        "S[w, p] = Q[p] * K[min(max(p - W // 2, 0), max(P - W, 0)) + w]",
    ),
    "dilated neighbours": Template(
        {"p": 12, "w": 4, "d": 3}, {"Q": ["p"], "K": ["p"]}, ["S"], "S[w, p] = Q[p] * K[p % D + (p // D - w) * D]"
    ),
    "join": Template(
        {"i": 4, "j": 6, "p": "i + j", "c": 2}, {"A": ["i", "c"], "B": ["j", "c"], "F": ["p"]}, ["Z"],
        "X[p, c] = coalesce(A[p, c], B[p - I, c])\nZ[c] = sum[p](X[p, c] * F[p]) where p != 2",
    ),
    "products of coordinates": Template(
        {"p": 6, "m": 6, "k": "p * m"}, {"X": ["k"], "Y": ["m"]}, ["Z"], "Z[p, m] = X[p * m] + Y[m]"
    ),
    "chosen": Template(
        {"p": 10, "m": 6}, {"X": ["p"], "Y": ["m"]}, ["Z"], "Z[p, m] = X[select(m < 3, p, p // 2)] + Y[m]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PIECES))
@pytest.mark.parametrize("witnesses", [domain.MAX_WITNESSES, 0], ids=["small", "as if large"])
def test_random_designs_of_pieces(monkeypatch: pytest.MonkeyPatch, name: str, witnesses: int) -> None:
    """Exact where points can be looked at, whatever the operators; where they cannot, by pieces, or a bound that says
    so."""
    for op, function in (("min", min), ("max", max), ("select", lambda c, a, b: a if c else b)):
        monkeypatch.setitem(brute_force.OPERATORS, op, function)
    monkeypatch.setitem(globals(), "TEMPLATES", {name: PIECES[name]})
    monkeypatch.setattr(domain, "MAX_WITNESSES", witnesses)
    seen = {"exact": 0, "bounded": 0}

    @settings(max_examples=8, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(designs())
    def check(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
        try:
            design = design_of(*pair)
            evaluate(design)
        except InputError:
            return
        found = check_walk(design)
        seen["bounded" if found.notes else "exact"] += 1

    check()
    assert seen["exact"] >= 4 or (witnesses == 0 and seen["bounded"] >= 4)
    assert seen["bounded"] == 0 or witnesses == 0


def test_an_index_computed_from_coordinates_is_as_good_as_written_out() -> None:
    """The start of a window as a tensor of its own, and in the index."""
    raw = {"name": "window", "ranks": {"h": 2, "p": 64, "w": 5}, "batch": ["h"], "inputs": {"Q": ["p"], "K": ["p"]}}
    start = "min(max(p - W // 2, 0), P - W)"
    out = {**raw, "outputs": ["S"], "einsums": f"S[w, p] = Q[p] * K[{start} + w]\n"}
    made = {**raw, "outputs": ["S"], "einsums": f"START[p] = {start}\nS[w, p] = Q[p] * K[START[p] + w]\n"}
    group = {
        "tile": {"p": ["p1", "p0"], "p0": 8}, "loops": ["h", "p1"], "keep": {"l1": {"K": "p1"}},
        "bind": {"S": {"unit": "line"}},
    }  # fmt: skip
    first = {"name": "before", "bind": {"START": {"unit": "line"}}}
    a = evaluate(design_of(out, {"groups": [group]}))
    b = evaluate(design_of(made, {"groups": [first, group]}))
    # eight windows of 8 + 4 keys, but for two at either end, which are 2 shorter
    assert a.traffic_bytes["dram"]["K"]["read"] == b.traffic_bytes["dram"]["K"]["read"] == 2 * (8 * 12 - 4)
    assert a.notes == b.notes == []
    assert a.groups[0].footprint_bytes["l1"]["K"] == b.groups[1].footprint_bytes["l1"]["K"] == 12


@pytest.mark.parametrize(("seq", "window"), [(20, 4), (2**14, 512), (2**20, 4096)])
def test_tiles_of_a_union_of_masks(seq: int, window: int) -> None:
    """A causal window and the first keys: points and tiles, at any length."""
    raw = {
        "name": "sinks", "ranks": {"p": seq, "m": seq}, "inputs": {"Q": ["p"], "K": ["m"]}, "outputs": ["S"],
        "einsums": f"S[p, m] = Q[p] * K[m] where m <= p and (p - m < {window} or m < 2)\n",
    }  # fmt: skip
    group = {
        "tile": {"p": ["p1", "p0"], "p0": 4, "m": ["m1", "m0"], "m0": 4}, "loops": ["p1", "m1"],
        "keep": {"l1": {"K": "m1"}}, "bind": {"S": {"unit": "grid", "spatial": {"x": "p0", "y": "m0"}}},
    }  # fmt: skip
    found = evaluate(design_of(raw, {"groups": [group]}))
    inside = window * seq - window * (window - 1) // 2
    assert found.einsums[0].points == inside + (seq - window) + (seq - window - 1)  # keys 0 and 1, where they are out
    tiles = sum(min(p1, window // 4) + 1 + (p1 > window // 4) for p1 in range(seq // 4))
    assert found.einsums[0].cycles == tiles * 2 * 2
    assert found.notes == []


SPLIT = {"p": ["p1", "p0"], "m": ["m1", "m0"]}


@pytest.mark.parametrize("einsums", [
    "S[p, m] = Q[p, e] * K[m, e]\nG[p] = max[m](S[p, m])\nN[p, m] = exp(S[p, m] - G[p])\nZ[p, e] = N[p, m] * V[m, e]",
    "S[p, m] = Q[p, e] * K[m, e] where m <= p\nG[p] = max[m](S[p, m])\nN[p, m] = exp(S[p, m] - G[p])\n"
    "Z[p, e] = N[p, m] * V[m, e]",
], ids=["all", "causal"])  # fmt: skip
@pytest.mark.parametrize(("p", "m", "p0", "m0"), [(10, 12, 4, 5), (11, 11, 7, 3), (13, 5, 5, 8), (12, 12, 4, 6)])
def test_ragged_tiles_are_those_of_a_ragged_split(einsums: str, p: int, m: int, p0: int, m0: int) -> None:
    """`tile` and `split` say the same in two ways, which are counted in two ways where points are absent."""
    raw = {
        "name": "ragged", "ranks": {"p": p, "m": m, "e": 3},
        "inputs": {"Q": ["p", "e"], "K": ["m", "e"], "V": ["m", "e"]}, "outputs": ["Z"], "einsums": einsums + "\n",
    }  # fmt: skip
    spread = {"unit": "grid", "spatial": {"x": "p0", "y": "m0"}}
    fields = {
        "loops": ["p1"], "keep": {"l2": {"Q": "p1", "K": "all", "S": "p1", "N": "p1", "G": "p1", "Z": "p1"}},
        "bind": {"S": spread, "G": {**spread, "spatial": {"x": "p0"}}, "N": spread, "Z": spread},
        "schedule": [["S"], ["G"], ["N", "Z"]], "interleave": False,
    }  # fmt: skip
    tiled = check_walk(design_of(raw, {**fields, "tile": {**SPLIT, "p0": p0, "m0": m0}}))
    split = check_walk(design_of(raw, {**fields, "split": SPLIT, "tile": {"p0": p0, "m0": m0}}))
    assert tiled.traffic_bytes == split.traffic_bytes
    for name in ("cycles", "energy_j", "utilization"):
        assert getattr(tiled, name) == pytest.approx(getattr(split, name), rel=1e-12), name
    assert tiled.groups[0].footprint_bytes == split.groups[0].footprint_bytes


def test_a_last_tile_folds_as_often_as_it_fills_a_unit() -> None:
    """600 rows in tiles of 512 on 256 lanes: two fillings and one."""
    arch = ARCH.replace("line: {shape: [4]", "line: {shape: [256]")
    path = folder() / "wide.yaml"
    path.write_text(arch)
    raw = {
        "name": "copy",
        "ranks": {"p": 600},
        "inputs": {"X": ["p"]},
        "outputs": ["Y"],
        "einsums": "Y[p] = exp(X[p])\n",
    }
    group = {"tile": {"p": ["p1", "p0"], "p0": 512}, "loops": ["p1"], "arch": str(path),
             "bind": {"Y": {"unit": "line", "spatial": {"x": "p0"}}}}  # fmt: skip
    found = evaluate(design_of(raw, group))
    assert found.einsums[0].cycles == 3 * 3
    assert found.einsums[0].points == 600
    assert evaluate(design_of(raw, group), sets={"p": 100}).einsums[0].cycles == 3
