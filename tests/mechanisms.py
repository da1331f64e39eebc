"""Checks that every mechanism of the library passes, in few words."""

from __future__ import annotations

from functools import cache

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


def passes_over(name, rank):
    """Passes as written, and the least that ``derive`` reaches."""
    cascade = loaded(name)
    return passes(cascade, extents_of(cascade)).passes[rank], derive(cascade).passes_after[rank]
