"""A derived cascade against its original, on random inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from fusemodel.cascade.ir import Cascade
from fusemodel.errors import InputError
from fusemodel.numerics import random_inputs, run, test_extents
from fusemodel.numerics.compare import error_of

TOLERANCE = 1e-9
_SHAPES = (None, 11, 7)


def same_numbers(original: Cascade, derived: Cascade, new: tuple[str, ...] = ()) -> str | None:
    """None if both compute the same outputs on random inputs at several shapes; else what differs. ``new`` are ranks of
    tiles that only the derived cascade has; they are varied, so that last tiles are not full."""
    tried = False
    for number, sizes in enumerate(_shapes(original)):
        for seed in (number, number + 17):
            inputs = random_inputs(original, sizes, seed=seed)
            expected = run(original, inputs, sizes)
            if not all(np.isfinite(v).all() for v in expected.outputs.values()):
                inputs = {n: np.abs(a) if a.dtype.kind == "f" else a for n, a in inputs.items()}
                expected = run(original, inputs, sizes)
            given = {**sizes, **dict.fromkeys(new, (4, 3, 2)[number])} if number else sizes
            kept = {n: a for n, a in inputs.items() if n in derived.inputs}
            try:
                found = run(derived, kept, {r: n for r, n in given.items() if r in derived.ranks})
            except InputError as error:
                return f"it does not run: {error}"
            for name, value in expected.outputs.items():
                tried = tried or bool(np.isfinite(value).any())
                _, relative = error_of(found.outputs[name], value)
                if not relative <= TOLERANCE:
                    return f"{name} differs by {relative:.1e} at {_words(sizes)}"
    return None if tried else "no element of the outputs is finite on random inputs"


def _shapes(cascade: Cascade) -> Iterator[Mapping[str, int]]:
    first = test_extents(cascade)
    plain = [r for r in cascade.ranks if type(cascade.ranks[r]).__name__ == "Number"]
    seen = []
    for cap in _SHAPES:
        try:
            small = {r: min(first[r], cap + i % 3) for i, r in enumerate(plain)} if cap else {}
            sizes = test_extents(cascade, small)
        except InputError:
            continue
        if sizes not in seen:
            seen.append(sizes)
            yield sizes


def _words(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{r}={n}" for r, n in sizes.items())
