"""Layouts of nests on units against the plain search for them."""

from __future__ import annotations

from math import inf

import numpy as np
import plain_layouts

from fusemodel.explore.layout import Member, Problem, Ragged, layouts


def problem(draw: np.random.Generator) -> Problem:
    names = [*map(str, draw.permutation(["p_0", "m_0", "e_0", "f_0", "p_1", "m_1", "h"]))][: draw.integers(1, 7)]
    free = tuple((x, int(draw.choice([1, 2, 3, 4, 7, 16, 64, 100, 256]))) for x in names[: draw.integers(1, 6)])
    own = tuple((x, 1, int(draw.choice([1, 2, 5, 64, 1024]))) for x in names[len(free) : len(free) + 2])
    every = [x for x, *_ in (*free, *own)]

    def some(of: list[str], part: float) -> frozenset[str]:
        return frozenset(x for x in of if draw.random() < part)

    members = []
    for _ in range(draw.integers(1, 3)):
        leaves = sorted(some(every, 0.7) | {every[0]})
        operands = tuple(some(leaves, 0.6) for _ in range(draw.integers(1, 4)))
        members.append(Member(frozenset(leaves), some(leaves, 0.3), operands, float(draw.choice([1.0, 6.0, 2.5]))))
    ragged = tuple(
        Ragged(x, int(draw.integers(1, n + 1)), int(draw.integers(2, 9))) for x, n in free
        if n > 1 and draw.random() < 0.2
    )  # fmt: skip
    shapes = [(("x", 256),), (("x", 16), ("y", 8)), (("x", 256), ("y", 256))]
    return Problem(
        free, own, tuple(members), shapes[draw.integers(3)], some(["x", "y"], 0.5),
        float(draw.choice([64.0, 1e4, inf])), bool(draw.random() < 0.5),
        (("x", tuple(x for x, _ in free[:1])),) if draw.random() < 0.1 else None,
        tuple(reversed(every)) if draw.random() < 0.1 else None, ragged[:2],
    )  # fmt: skip


def test_layouts_are_those_of_the_plain_search() -> None:
    draw = np.random.default_rng(7)
    found = 0
    for _ in range(400):
        one = problem(draw)
        mine, plain = layouts(one), plain_layouts.layouts(one)
        assert [(x.spatial, x.loops) for x in mine] == [(x.spatial, x.loops) for x in plain], one
        np.testing.assert_allclose([x.cycles for x in mine], [x.cycles for x in plain], rtol=1e-12)
        found += len(mine)
    assert found > 500
