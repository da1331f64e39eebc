"""Lower bounds: formulas by hand, and no mapping that moves less, by the brute-force walk and by the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any

import numpy as np
import pytest
from brute_force import GroupWalk, Presence, walk
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from strategies import cascade_texts
from test_counts import design_of, designs

from fusemodel.analysis.bounds import bounds
from fusemodel.analysis.graph import Dependence
from fusemodel.api import evaluate
from fusemodel.cascade import Cascade, load_cascade, parse_cascade
from fusemodel.cascade.extents import extents_of
from fusemodel.cascade.ir import Access, Apply, Expr, is_start, iteration_ranks, reads, reduced_ranks
from fusemodel.cascade.workload import extents_for, load_workload
from fusemodel.errors import InputError
from fusemodel.library import names
from fusemodel.mapping import Design, load_design
from fusemodel.model import evaluate as evaluate_design
from fusemodel.numerics import run
from fusemodel.numerics import test_extents as check_extents
from fusemodel.numerics.evaluate import condition
from fusemodel.numerics.evaluate import evaluate as value_of
from fusemodel.numerics.values import Space, Stored, all_hold, merged
from fusemodel.report.figures import dot

SMALL = {"b": 2, "h": 3, "p": 20, "m": 28, "e": 4, "f": 5}
BERT = {"b": 64, "h": 12, "p": 4096, "m": 4096, "e": 64, "f": 64}


def of(text: str, **sizes: int) -> Any:
    cascade = parse_cascade(text)
    return bounds(cascade, extents_of(cascade, sizes))


@pytest.mark.parametrize("sizes", [SMALL, BERT], ids=["small", "bert"])
def test_three_passes(sizes: dict[str, int]) -> None:
    cascade = load_cascade("attention-3pass")
    found = bounds(cascade, extents_of(cascade, sizes))
    b, h, p, m, e, f = (sizes[r] for r in "bhpmef")
    scores = b * h * p * m
    assert found.operations_at == {
        "mac": scores * (e + f), "max": scores, "sub": scores, "exp": scores, "add": scores, "divide": scores,
    }  # fmt: skip
    assert str(found.operations["mac"]) == "B*E*H*M*P + B*F*H*M*P"
    assert found.compulsory_at == {
        "Q": {"read": b * h * p * e}, "K": {"read": b * h * m * e}, "V": {"read": b * h * m * f},
        "AV": {"write": b * h * p * f},
    }  # fmt: skip
    words = b * h * (p * e + m * e + m * f + p * f)
    assert found.compulsory_words_at == words
    assert found.intensity_at == pytest.approx(scores * (e + f + 5) / words)
    (fiber,) = found.fibers
    assert (fiber.rank, fiber.passes, str(fiber.buffer), str(fiber.reread)) == ("m", 3, "M", "2*B*H*M")
    assert [(w.complete, w.tensor, w.reader) for w in fiber.waits] == [("GM", "QK", "SN"), ("SD", "SN", "A")]
    assert (fiber.extra(m), fiber.extra(m - 3)) == (0, 2 * b * h * 3)
    assert found.traffic_bound(m - 3) >= words + 2 * b * h * 3
    assert found.footprint.grows["m"]
    assert not found.footprint.grows["p"]
    # dot products over e and m as trees, a maximum and a sum over m, and mac, sub, exp, divide, mac
    assert found.critical_path_at == (e - 1).bit_length() + 3 * (m - 1).bit_length() + 5


@pytest.mark.parametrize("sizes", [SMALL | {"m0": 4}, BERT], ids=["small", "bert"])
def test_one_pass(sizes: dict[str, int]) -> None:
    cascade = load_cascade("attention-1pass")
    extents = extents_of(cascade, sizes)
    found = bounds(cascade, extents)
    b, h, p, m, e, f, m0, m1 = (extents[r] for r in ("b", "h", "p", "m", "e", "f", "m0", "m1"))
    scores, tiles = b * h * p * m, b * h * p * m1
    assert found.operations_at == {
        "mac": scores * (e + f), "max": scores + tiles, "sub": scores + tiles, "exp": scores + tiles,
        "add": scores + tiles * (1 + f), "mul": tiles * (1 + f), "divide": b * h * p * f,
    }  # fmt: skip
    assert found.compulsory_words_at == b * h * (p * e + m * e + m * f + p * f)
    assert [f.rank for f in found.fibers] == ["m0"]  # within a tile, once more for its maximum
    assert (found.fibers[0].extra(m0), found.fibers[0].extra(m0 - 1)) == (0, b * h * m1)
    assert found.traffic_bound(m0 - 1) >= found.compulsory_words_at + b * h * m1
    grows = found.footprint.grows
    assert (grows["m"], grows["m1"], grows["p"], grows["m0"], grows["f"]) == (False, False, False, True, True)
    assert found.notes == ()
    # up to a step, a product over e, the tile; then a mul and an add for each of its steps
    assert found.critical_path_at >= 2 * m1


def test_a_last_tile_that_is_not_full() -> None:
    cascade = load_cascade("attention-1pass")
    found = bounds(cascade, extents_of(cascade, {**SMALL, "m0": 8}))
    assert found.operations_at["exp"] == 2 * 3 * 20 * (28 + 4)
    assert found.compulsory_at["K"] == {"read": 2 * 3 * 28 * 4}


CAUSAL = """
name: causal
ranks: {p: 12, m: 12}
inputs: {Q: [p], K: [m]}
outputs: [Z]
einsums: |
  S[p, m] = Q[p] * K[m] where m <= p and m < P - 2
  G[p] = max[m](S[p, m])
  Z[p, m] = exp(S[p, m] - G[p])
"""


def test_conditions_are_counted() -> None:
    found = of(CAUSAL)
    pairs = sum(min(p + 1, 10) for p in range(12))
    assert found.operations_at == {"mul": pairs, "max": pairs, "sub": pairs, "exp": pairs}
    assert found.compulsory_at == {"Q": {"read": 12}, "K": {"read": 10}, "Z": {"write": pairs}}
    (fiber,) = found.fibers
    assert fiber.buffer_at == 10  # of the last row
    assert any("conditions leave out" in n for n in found.notes)


def test_a_product_has_the_classical_bound() -> None:
    text = (
        "name: product\nranks: {m: 64, n: 64, k: 64}\ninputs: {A: [m, k], B: [k, n]}\noutputs: [Z]\n"
        "einsums: 'Z[m, n] = A[m, k] * B[k, n]'\n"
    )
    found = of(text)
    # phases of as many words as the chip holds, S: 3 S words of Z at most, S of A and S of B (the best split of 2 S)
    assert found.traffic_bound(2) >= 64**3 / sqrt(12 / 2) - 2
    assert found.traffic_bound(10**6) == 3 * 64 * 64


def test_attention_has_the_known_bound() -> None:
    """Of the order of M P E^2 / S for S from E^2 words to K whole (Saha and Ye, The I/O Complexity of Attention, 2024);
    with three passes about three times that, as long as the keys do not fit."""
    n, e = 2**16, 64
    sizes = {"b": 1, "h": 1, "p": n, "m": n, "e": e, "f": e}
    one = bounds(load_cascade("attention-1pass"), extents_of(load_cascade("attention-1pass"), sizes))
    three = bounds(load_cascade("attention-3pass"), extents_of(load_cascade("attention-3pass"), sizes))
    for words in (4 * e * e, 16 * e * e):
        scale = n * n * e * e / words
        assert 0.5 * scale < one.traffic_bound(words) < 4 * scale
        assert 1.7 < three.traffic_bound(words) / one.traffic_bound(words) <= 3
    assert one.traffic_bound(4 * n * e) == three.traffic_bound(4 * n * e) == 4 * n * e


SMALL_CHIP = [
    ({"m": 12, "n": 12, "k": 20}, {"A": ["m", "k"], "B": ["k", "n"]}, "Z[m, n] = A[m, k] * B[k, n]"),
    (
        {"p": 10, "m": 12, "e": 2}, {"Q": ["p", "e"], "K": ["m", "e"]},
        "S[p, m] = Q[p, e] * K[m, e]\nG[p] = max[m](S[p, m])\nN[p, m] = exp(S[p, m] - G[p])\n"
        "D[p] = sum[m](N[p, m])\nZ[p, m] = N[p, m] / D[p]",
    ),
    (
        {"p": 6, "m": 16}, {"X": ["p", "m"]},
        "G[p] = mean[m](X[p, m])\nC[p, m] = X[p, m] - G[p]\nD[p] = mean[m](C[p, m] * C[p, m])\n"
        "Z[p, m] = C[p, m] / D[p]",
    ),
    (
        {"p": 16, "m": 20, "e": 2}, {"Q": ["p", "e"], "K": ["m", "e"], "V": ["m", "e"]},
        "S[p, m] = Q[p, e] * K[m, e]\nG[p] = max[m](S[p, m])\nN[p, m] = exp(S[p, m] - G[p])\n"
        "Z[p, e] = N[p, m] * V[m, e]",
    ),
]  # fmt: skip


def test_no_mapping_with_a_small_chip_moves_less() -> None:
    """Chips so small that the bounds are above what is compulsory."""
    seen = {"above compulsory": 0, "refused": 0, "checked": 0}

    @settings(
        max_examples=80, phases=[Phase.generate], derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def check(data: Any) -> None:
        ranks, inputs, einsums = data.draw(st.sampled_from(SMALL_CHIP))
        sizes = {r: data.draw(st.sampled_from([n // 2, n])) for r, n in ranks.items()}
        text = {"name": "small", "ranks": sizes, "inputs": inputs, "outputs": ["Z"], "einsums": einsums + "\n"}
        names = [line.split("[")[0] for line in einsums.splitlines()]
        cut = data.draw(st.sampled_from([len(names), 1]))
        groups = []
        for start in range(0, len(names), cut):
            members = names[start : start + cut]
            shared = ["p"] if len(members) > 1 and data.draw(st.booleans()) else []
            bind = {}
            for n in members:
                used = [r for r in sizes if re.search(rf"\b{r}\b", line_of(einsums, n)) and r not in shared]
                bind[n] = {"unit": "grid", "loops": data.draw(st.permutations(used))}
            keep = {}
            if len(members) > 1:  # what passes between them needs a place; a row at a time, or everything
                keep = dict.fromkeys(members[:-1], shared[0] if shared else "all")
            for t in inputs:
                if data.draw(st.integers(0, 3)) == 0 and any(t in x for x in einsums.splitlines()):
                    keep[t] = shared[0] if shared else "all"
            read = {t for n in members for t in [*inputs, *names] if re.search(rf"\b{t}\[", line_of(einsums, n))}
            keep = {t: k for t, k in keep.items() if t in read}
            groups.append({"loops": shared, "bind": bind, "keep": {"l1": keep} if keep else {}})
        try:
            design = design_of(text, {"groups": groups})
            model = evaluate_design(design)
        except InputError:
            seen["refused"] += 1
            return
        tiles = [g.tiles for g in model.groups]
        truth = walk(design, model.extents, tiles)
        walked = sum(sum(v) for (level, _), v in truth.traffic.items() if level == design.arch.outermost)
        found = bounds(design.cascade, model.extents)
        least = found.traffic_bound(on_chip(design, model.extents, tiles))
        assert least <= walked + 1e-9, (text, groups, least, walked)
        seen["checked"] += 1
        seen["above compulsory"] += least > found.compulsory_words_at

    check()
    assert seen["above compulsory"] >= 20, seen


def line_of(einsums: str, name: str) -> str:
    return next(x for x in einsums.splitlines() if x.startswith(f"{name}["))


def test_what_depends_on_data_is_no_bound() -> None:
    text = (
        "name: gather\nranks: {p: 12, s: 4, m: 6, e: 2}\ninputs: {I: [s, p], K: [m, e]}\noutputs: [Z]\n"
        "einsums: 'Z[p, e] = sum[s](K[I[s, p], e])'\n"
    )
    found = of(text)
    assert found.compulsory_at == {"I": {"read": 48}, "K": {"read": 0}, "Z": {"write": 24}}
    assert found.notes


def test_the_bound_falls_with_the_buffer() -> None:
    for name in ("attention-3pass", "attention-1pass"):
        cascade = load_cascade(name)
        found = bounds(cascade, extents_of(cascade, BERT))
        values = [found.traffic_bound(2**k) for k in range(24)]
        assert values == sorted(values, reverse=True)
        assert values[-1] == found.compulsory_words_at < values[0]


def on_chip(design: Design, extents: dict[str, int], tiles: list[dict[str, int]]) -> int:
    """Words that a design may have on chip at once: its tiles, its registers and what passes through them."""
    truth = walk(design, extents, tiles)
    presence = Presence(design.cascade, extents)
    most = 0
    for index, sizes in enumerate(tiles):
        group = GroupWalk(design, index, {**extents, **sizes}, presence, truth)
        held = sum(n for (level, _), n in truth.footprint[index].items() if level != design.arch.outermost)
        for name, nest in group.nests.items():
            for access in dict.fromkeys((*reads(nest.einsum), nest.einsum.target)):
                motion = group.motion(name, access, group.outside(name, None))
                visits = group.visits(name, [access], motion[0]).values()
                held += max(map(len, visits), default=0)
                read = any(a.tensor == access.tensor for n in group.nests.values() for a in reads(n.einsum))
                passed = read and access.tensor in group.nests and not group.keeps(name, access.tensor)
                if passed:
                    state = design.cascade.tensors[access.tensor].iterative or nest.reduced & set(nest.shared)
                    every = group.visits(name, [access], () if state else nest.shared).values()
                    held += max(map(len, every), default=0)
        most = max(most, held)
    return most


def test_no_random_mapping_moves_less() -> None:
    seen = {"checked": 0, "above compulsory": 0, "refused": 0}

    @settings(
        max_examples=350,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(designs())
    def check(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
        try:
            design = design_of(*pair)
            model = evaluate_design(design)
        except InputError:
            seen["refused"] += 1
            return
        tiles = [g.tiles for g in model.groups]
        truth = walk(design, model.extents, tiles)
        walked = sum(sum(v) for (level, _), v in truth.traffic.items() if level == design.arch.outermost)
        found = bounds(design.cascade, model.extents)
        least = found.traffic_bound(on_chip(design, model.extents, tiles))
        assert found.compulsory_words_at <= least <= walked + 1e-9, (pair, least, walked)
        assert least <= model.dram_bytes / design.arch.word_bytes + 1e-9
        seen["checked"] += 1
        seen["above compulsory"] += least > found.compulsory_words_at

    check()
    assert seen["checked"] >= 200, seen


@pytest.mark.parametrize("name", ["fusemax", "fusemax-cascade", "flat", "flat-best", "unfused"])
@pytest.mark.parametrize("workload", ["bert", "xlm"])
def test_library_mappings_move_no_less(name: str, workload: str) -> None:
    design = load_design(name)
    cascade, arch = design.cascade, design.arch
    sizes = [level.size_bytes for x, level in arch.levels.items() if x != arch.outermost]
    words = sum(s or 0.0 for s in sizes) / arch.word_bytes
    words += sum(u.size * u.registers.words for u in arch.units.values() if u.registers)
    for seq in (2**10, 2**12, 2**14, 2**16, 2**18, 2**20):
        found = evaluate(name, workload, seq)
        least = bounds(cascade, found.extents)
        moved = found.dram_bytes / arch.word_bytes
        assert least.compulsory_words_at <= least.traffic_bound(words) <= moved
        expected = extents_of(cascade, extents_for(cascade, load_workload(workload), seq))
        assert expected["m"] == seq


# What is counted, against what is executed


class Executed:
    """The points that executing a cascade computes, and the elements that it reads at them: the interpreter's own
    values and reasons for absence, looked at point by point."""

    def __init__(self, cascade: Cascade, extents: Mapping[str, int]) -> None:
        result = run(cascade, extents=extents)
        gaps = {n: {frozenset(range(mask.ndim)): mask} for n, mask in result.present.items()}
        self.tensors = {n: Stored(values, gaps.get(n, {})) for n, values in result.tensors.items()}
        self.points: dict[str, np.ndarray] = {}
        self.elements: dict[str, dict[str, set[tuple[int, ...]]]] = {}
        for e in cascade.explicit:
            if not is_start(e, cascade.tensors[e.name]):
                self.read = self.elements.setdefault(e.name, {})
                ranges = {r: range(extents[r]) for r in iteration_ranks(e)}
                self.space = Space(ranges, {}, extents, np.float64)
                parts = [e.body, *([] if e.selection else e.target.indices)]
                with np.errstate(all="ignore"):
                    reasons = condition(e.where, self.space, self.tensors)
                    there = self.mask([*reasons, *(f for x in parts for f in self.value(x).factors)])
                    for x in (*parts, *([e.where] if e.where else [])):
                        self.visit(x, there)
                self.points[e.name] = there

    def value(self, expr: Expr) -> Any:
        return value_of(expr, self.space, self.tensors)

    def mask(self, factors: Iterable[Any]) -> np.ndarray:
        holds = all_hold(merged(factors))
        return np.broadcast_to(np.True_ if holds is None else holds, self.space.shape)

    def visit(self, expr: Expr, there: np.ndarray) -> None:
        """Note the elements that are needed at some points; of ``coalesce`` those of the first value present."""
        if isinstance(expr, Access):
            at = [np.broadcast_to(self.value(i).data, self.space.shape)[there].astype(int) for i in expr.indices]
            found = set(zip(*(a.tolist() for a in at), strict=True)) if at else {()} if there.any() else set()
            self.read.setdefault(expr.tensor, set()).update(found)
            for index in expr.indices:
                self.visit(index, there)
        elif isinstance(expr, Apply):
            for x in expr.args:
                present = self.mask(self.value(x).factors) if expr.op == "coalesce" else np.True_
                self.visit(x, there & present)
                if expr.op == "coalesce":
                    there = there & ~present


def check_executed(cascade: Cascade, extents: Mapping[str, int]) -> dict[str, int]:
    """Counts that are called exact are those of executing the cascade; others are bounds."""
    truth, found = Executed(cascade, extents), Dependence(cascade, extents)
    seen = {"exact": 0, "absent": 0, "inexact": 0}
    for name, p in found.points.items():
        n, exact = found.count(name)
        points = truth.points[name]
        assert n == points.sum() if exact else n >= points.sum(), name
        seen["exact" if exact else "inexact"] += 1
        seen["absent"] += exact and not points.all()
        ranks = iteration_ranks(p.einsum)
        reduced = tuple(i for i, r in enumerate(ranks) if r in reduced_ranks(p.einsum))
        outputs = int(points.any(axis=reduced).sum())
        n, exact = found.count(name, tuple(r for i, r in enumerate(ranks) if i not in reduced))
        assert n == outputs if exact else n >= outputs, name
    for tensor in cascade.inputs:
        if tensor in found.live:
            live = (read.get(tensor, set()) for e, read in truth.elements.items() if e in found.live)
            elements = len(set().union(*live))
            n, exact = found.touched(tensor)
            assert n == elements if exact else n <= elements, tensor
    return seen


def test_random_cascades_are_counted_as_they_are_executed() -> None:
    seen = {"exact": 0, "absent": 0, "inexact": 0}

    @settings(
        max_examples=150, phases=[Phase.generate], derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cascade_texts())
    def check(text: str) -> None:
        try:
            cascade = parse_cascade(text)
            extents = extents_of(cascade)
            run(cascade, extents=extents)
        except InputError:
            return
        for kind, n in check_executed(cascade, extents).items():
            seen[kind] += n

    check()
    assert seen["absent"] >= 100, seen
    assert seen["exact"] >= 3 * seen["inexact"], seen


@pytest.mark.parametrize("name", sorted(names("cascades")))
def test_library_cascades_are_counted_as_they_are_executed(name: str) -> None:
    cascade = load_cascade(name)
    extents = check_extents(cascade)
    seen = check_executed(cascade, extents)
    said = [n for n in bounds(cascade, extents).notes if "upper value" in n or "at least" in n]
    assert all("depends on data" in n for n in said)
    assert said or not seen["inexact"]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        (name, {})
        for name in (
            "swin-shifted", "halonet", "relative-skew-local", "neighborhood-na", "neighborhood-na-1d",
            "neighborhood-biased", "neighborhood-strided", "dilated-na", "dilated-na-1d", "longformer", "sf-attn",
            "axwin", "composite-vl", "illama-causal", "deltanet-chunked", "flash3-fp8", "ssd-mamba2-chunked",
        )
    ]
    + [("relative-skew-local", {"p": 2**20}), ("longformer", {"p": 2**20}), ("neighborhood-na-1d", {"p": 2**20}),
       ("halonet", {"y": 1024, "x": 1024}), ("swin-shifted", {"y": 1022, "x": 1022})],
    ids=str,
)  # fmt: skip
def test_masks_of_the_size_of_papers_are_exact(name: str, sizes: dict[str, int]) -> None:
    cascade = load_cascade(name)
    found = bounds(cascade, extents_of(cascade, sizes))
    assert not [n for n in found.notes if "symbolic" not in n]
    assert all(n > 0 for sides in found.compulsory_at.values() for n in sides.values())


def line(name: str, ranks: str, inputs: str, einsum: str) -> str:
    return f"name: {name}\nranks: {{{ranks}}}\ninputs: {{{inputs}}}\noutputs: [O]\neinsums: '{einsum}'\n"


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        # rows of 4 and the first 2 keys
        (line("or", "p: 20, m: p", "X: [p, m]", "O[p, m] = exp(X[p, m]) where m <= p and (p - m < 4 or m < 2)"),
         4 * 20 - 6 + 16 + 15),
        # sixteen triangles of 512
        (line("remainder", "p: 8192, w: 512", "X: [w, p]", "O[w, p] = exp(X[w, p]) where w <= p % W"), 2_101_248),
        # a hyperbola
        (line("product", "p: 4096, m: p", "X: [p, m]", "O[p, m] = exp(X[p, m]) where p * m < 1000"),
         2 * 4096 - 1 + sum(min(4095, 999 // p) for p in range(1, 4096))),
    ],
    ids=["or", "remainder", "product"],
)  # fmt: skip
def test_masks_by_hand(text: str, truth: int) -> None:
    found = of(text)
    assert found.operations_at == {"exp": truth}
    assert found.compulsory_at == {"X": {"read": truth}, "O": {"write": truth}}


def test_relative_positions_by_hand() -> None:
    """Blocks of 512 causally to themselves, and to all of the block before."""
    found = bounds(load_cascade("relative-skew-local"), extents_of(load_cascade("relative-skew-local")))
    p, i, h = 3500, 512, 8
    rows = sum((x % i + 1) + (i if x >= i else 0) for x in range(p))
    assert found.operations_at["exp"] == h * rows == 19_277_040


@pytest.mark.parametrize(("i", "i0"), [(10, 4), (10**6, 4096)])
def test_a_recurrence_ends_with_its_tile(i: int, i0: int) -> None:
    """Sums along tiles, the last of which is not full: everything is computed once for each element."""
    text = (
        f"name: sums\nranks: {{i: {i}, i0: {i0}, i1: ceil(i / i0)}}\nsplit: {{i: [i1, i0]}}\n"
        "inputs: {A: [i], X: [i]}\noutputs: {Y: [i1, i0]}\neinsums: |\n  LC[i1, 0] = 0\n"
        "  LC[i1, i0+1] = LC[i1, i0] + A[i1, i0]\n  Y[i1, i0] = exp(LC[i1, i0+1]) * X[i1, i0]\n"
    )
    found = of(text)
    assert found.operations_at == {"add": i, "exp": i, "mul": i}
    assert found.compulsory_at == {"A": {"read": i}, "X": {"read": i}, "Y": {"write": i}}
    assert not [n for n in found.notes if "symbolic" not in n]


def test_what_fails_once_in_a_recurrence_fails_ever_after() -> None:
    """Row p ends at step p, though its condition holds again after."""
    text = (
        "name: broken\nranks: {i: 40, p: 50}\ninputs: {X: [i, p]}\noutputs: {R: [i, p]}\neinsums: |\n"
        "  R[0, p] = 0\n  R[i+1, p] = R[i, p] + X[i, p] where i != p\n"
    )
    found = of(text)
    assert found.operations_at == {"add": sum(min(p, 40) for p in range(50))}


@pytest.mark.parametrize(
    "steps",
    [
        # a condition on a rank that is summed leaves out points, not steps
        "R[i+1, p] = sum[m](R[i, p] * X[i, m]) where m <= i",
        "R[i+1, p] = sum[m](R[i, p] * X[i, m]) where i != 3 and m != i",
        "R[i+1, p] = R[i, p] + X[i, p] where (i + p) % 5 < 4",
        "H[i, p] = R[i, p] * X[i, p - 1]\n  R[i+1, p] = H[i, p] + X[i + 1, p]",
        "R[i+1, p] = coalesce(R[i, p] * X[i, p - 2], X[i, p])",
        "R[i+1, p] = R[i, p - 1] + X[i, p]",
    ],
)
def test_recurrences_are_counted_as_they_are_executed(steps: str) -> None:
    cascade = parse_cascade(
        "name: steps\nranks: {i: 7, p: 6, m: 6}\ninputs: {X: [i, p]}\noutputs: {Z: [i, p], Y: [p]}\neinsums: |\n"
        f"  R[0, p] = X[0, p - 1]\n  {steps}\n  Z[i, p] = R[i+1, p] * X[i, p]\n  Y[p] = R[I, p] * 2\n"
    )
    seen = check_executed(cascade, extents_of(cascade))
    assert seen["exact"] == len(cascade.einsums) - 1 or "p - 1] +" in steps or "coalesce" in steps, seen


def test_a_start_that_may_be_absent_is_no_certain_start() -> None:
    """Of fewer scores than are asked for, which of those chosen is absent depends on how many there are."""
    text = (
        "name: start\nranks: {i: 3, m: 4, s: 4, p: 2}\ninputs: {X: [m, p]}\noutputs: {R: [i, p]}\neinsums: |\n"
        "  TOP[s, p] = topk[m -> s](X[m - 2, p])\n  R[0, p] = TOP[3, p]\n  R[i+1, p] = R[i, p] * 2\n"
    )
    cascade = parse_cascade(text)
    seen = check_executed(cascade, extents_of(cascade))
    assert seen["inexact"] == 1


def test_of_two_that_join_the_second_is_read_where_the_first_is_not() -> None:
    text = line("join", "i: 6, j: 9, p: 12", "A: [i], B: [j]", "O[p] = coalesce(A[p], B[p - 4])")
    assert of(text).compulsory_at == {"A": {"read": 6}, "B": {"read": 12 - 6}, "O": {"write": 12}}


def test_a_state_does_not_grow_with_the_chunks_before_it() -> None:
    """Decays that depend on the place in a chunk alone are no reason to step through the places first."""
    found = bounds(load_cascade("lightning-attention-chunked"), extents_of(load_cascade("lightning-attention-chunked")))
    assert str(found.footprint.tensors["KVL"]) == "E*F"
    assert not found.footprint.grows["i"]
    assert found.footprint.grows["i0"]


def test_no_design_in_the_picture_is_below_the_bound_of_its_cascade():
    """On machines of many instances too, where what is on chip is in all of them, and in caches."""
    cascade = load_cascade("attention-1pass")
    least = bounds(cascade, extents_of(cascade, {"b": 1, "p": 16384, "m": 16384}))
    names = ("fusemax", "fusemax-arch", "fusemax-cascade", "decode-tiny", "decode-packed", "decode-wait")
    for name in names:
        design = load_design(name)
        assert design.cascade.name == cascade.name
        d = dot(evaluate(name, sets={"b": 1, "p": 16384, "m": 16384}), design.arch)
        assert d.dram_bytes >= least.traffic_bound(d.on_chip_bytes / 2) * 2 * (1 - 1e-9), name
