"""Checks that every mechanism of the library passes, in few words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import pytest

from fusemodel.analysis import passes
from fusemodel.analysis.derive import derive
from fusemodel.cascade import extents_of, load_cascade
from fusemodel.numerics import compare


@cache
def loaded(name):
    return load_cascade(name)


def assert_agrees(name, extents, inputs=None, tolerance=1e-10):
    """The cascade equals its reference at some extents (those of ``test`` where they are not given)."""
    for seed in (0, 1):
        found = compare(loaded(name), extents, inputs=inputs, seed=seed)
        assert found.has_reference
        assert found.max_rel_error <= tolerance, f"{name} at {extents}: {found.max_rel_error}"


def passes_over(name, *ranks):
    """Passes over each rank as written, and the least that ``derive`` reaches."""
    cascade = loaded(name)
    before, after = passes(cascade, extents_of(cascade)).passes, derive(cascade).passes_after
    return [(before[r], after[r]) for r in ranks]


def agreement(shapes: Mapping[str, Sequence[Mapping[str, int]]]) -> Callable:
    """A test that each cascade equals its reference at some extents beyond those of its field `test`."""

    @pytest.mark.parametrize(("name", "extents"), [(n, s) for n, some in shapes.items() for s in some])
    def check(name, extents):
        assert_agrees(name, extents)

    return check


def pass_counts(expected: Mapping[tuple[str, str], tuple[int, int]]) -> Callable:
    """A test of the passes that a cascade makes over ranks, as written and as derived."""

    @pytest.mark.parametrize("name", list(dict.fromkeys(name for name, _ in expected)))
    def check(name):
        counts = {rank: both for (other, rank), both in expected.items() if other == name}
        assert dict(zip(counts, passes_over(name, *counts), strict=True)) == counts

    return check
