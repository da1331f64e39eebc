"""Shared, grouped and mixed heads against plain NumPy, and their passes."""

import pytest
from mechanisms import assert_agrees, passes_over

# extents beyond those of the field `test`; each mechanism is run at three shapes or more, a batch of one among them
SHAPES = {
    "gqa": [{}, {"b": 1, "g": 1, "r": 4, "p": 7, "m": 13}, {"b": 1, "g": 2, "r": 1, "p": 1, "m": 1}],
}
PASSES = {("gqa", "m"): (3, 1)}


@pytest.mark.parametrize(("name", "extents"), [(n, s) for n, shapes in SHAPES.items() for s in shapes])
def test_equals_the_reference(name, extents):
    assert_agrees(name, extents)


@pytest.mark.parametrize(("name", "rank"), PASSES)
def test_passes(name, rank):
    assert passes_over(name, rank) == PASSES[name, rank]
