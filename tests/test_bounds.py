"""Lower bounds: formulas by hand, and no mapping that moves less, by the brute-force walk and by the model."""

from __future__ import annotations

import re
from math import sqrt
from typing import Any

import pytest
from brute_force import GroupWalk, Presence, walk
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_counts import design_of, designs

from fusemodel.analysis.bounds import bounds
from fusemodel.api import evaluate
from fusemodel.cascade import load_cascade, parse_cascade
from fusemodel.cascade.extents import extents_of
from fusemodel.cascade.ir import reads
from fusemodel.cascade.workload import extents_for, load_workload
from fusemodel.errors import InputError
from fusemodel.mapping import Design, load_design
from fusemodel.model import evaluate as evaluate_design

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
