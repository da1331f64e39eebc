"""A derived cascade against its original, on random inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusemodel.cascade.ir import Cascade, Number, accesses
from fusemodel.errors import InputError
from fusemodel.numerics import random_inputs, run, test_extents
from fusemodel.numerics.compare import error_of

TOLERANCE = 1e-9
WIDE_TOLERANCE = 1e-6  # of inputs so large that exponentials lose digits
ROUNDING = 1e-12  # of what nearly cancels on small inputs, beside sums of order one
_SHAPES = ((11, 12, 13), (7, 8, 9), (13, 6), (6, 13))  # extents dealt out to the ranks in turn
_TILES = (4, 3, 2)
_SCALES = (300, 1e-3)
_FAR = 1e3
_SHIFT = 1e6  # of all inputs: what subtracts large numbers then loses twice its digits
_NUDGE = 1e-13  # a relative change of inputs, of the order of their rounding
_CONDITION = 1e3  # times the change that a nudge makes is what rounding may make

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Trial:
    """Inputs at some extents and what the original makes of them. ``tile`` is the extent of ranks that only the derived
    cascade has (None: its own); where ``wide``, what is not finite is not compared."""

    sizes: Mapping[str, int]
    inputs: Arrays
    expected: Arrays
    tile: int | None
    what: str = ""
    wide: bool = False
    allowed: Mapping[str, float] = field(default_factory=dict)  # relative errors, in a trial of digits that are lost

    def compare(self, derived: Cascade, new: tuple[str, ...]) -> str | None:
        given = {**self.sizes, **(dict.fromkeys(new, self.tile) if self.tile else {})}
        kept = {n: a for n, a in self.inputs.items() if n in derived.inputs}
        try:
            found = run(derived, kept, {r: n for r, n in given.items() if r in derived.ranks}).outputs
        except InputError as error:
            return f"it does not run: {error}"
        for name, value in self.expected.items():
            compared = np.isfinite(value) & (np.isfinite(found[name]) | (not self.allowed))
            made = np.where(compared, found[name], value) if self.wide else found[name]
            absolute, relative = error_of(made, value)
            tolerance = self.allowed.get(name, WIDE_TOLERANCE if self.wide else TOLERANCE)
            if not relative <= tolerance and not (self.wide and absolute < ROUNDING):
                return f"{name} differs by {relative:.1e} at {_words(self.sizes)}{self.what}"
        return None


@dataclass(frozen=True)
class Check:
    """A cascade, and the trials that others must pass to compute the same."""

    original: Cascade

    def same_numbers(self, derived: Cascade, new: tuple[str, ...] = ()) -> str | None:
        """None if both compute the same outputs on random inputs; else what differs. ``new`` are ranks of tiles that
        only the derived cascade has; they are varied, so that last tiles are not full."""
        if not any(np.isfinite(v).any() for t in self.trials for v in t.expected.values()):
            return "no element of the outputs is finite on random inputs"
        return next((wrong for t in self.trials if (wrong := t.compare(derived, new)) is not None), None)

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """Several shapes; fibers that conditions leave empty; inputs large enough for an exponential to overflow if
        nothing is subtracted in it, and small ones."""
        found: list[Trial] = []
        for number, sizes in enumerate(_shapes(self.original)):
            tile = _TILES[(number - 1) % len(_TILES)] if number else None
            for seed in (number, number + 17)[: 2 if number < 2 else 1]:
                inputs = random_inputs(self.original, sizes, seed=seed)
                made = self.trial(sizes, inputs, tile)
                if not all(np.isfinite(v).all() for v in made.expected.values()):
                    made = self.trial(sizes, {n: _positive(a) for n, a in inputs.items()}, tile)
                found.append(made)
        sizes, tile = found[-1].sizes, found[-1].tile
        inputs = random_inputs(self.original, sizes, seed=5)
        for sign in (-1, 1) if (masks := self.masks) else ():
            emptied = {n: _emptied(a, sign * _FAR) if n in masks else a for n, a in inputs.items()}
            found.append(self.trial(sizes, emptied, tile, " with fibers that are all absent"))
        for scale in _SCALES:
            scaled = {n: a * scale if a.dtype.kind == "f" else a for n, a in inputs.items()}
            found.append(self.trial(sizes, scaled, tile, f" and inputs times {scale:g}", wide=True))
        return tuple(found)

    def cancels(self, derived: Cascade, new: tuple[str, ...] = ()) -> bool:
        """Whether a cascade that computes the same loses many more digits than the original where inputs are far from
        zero beside their spread."""
        return self.far is not None and self.far.compare(derived, new) is not None

    @cached_property
    def far(self) -> Trial | None:
        """Inputs that are all shifted, with errors allowed in proportion to what rounding these changes in the
        original; None where the original has no number for them."""
        last = self.trials[-1]
        inputs = random_inputs(self.original, last.sizes, seed=5)
        moved = {n: a + _SHIFT if a.dtype.kind == "f" else a for n, a in inputs.items()}
        made = self.trial(last.sizes, moved, last.tile, " and inputs shifted", wide=True)
        signs = np.random.default_rng(7)
        nudged = {
            n: a * (1 + _NUDGE * signs.choice((-1, 1), a.shape)) if a.dtype.kind == "f" else a for n, a in moved.items()
        }
        found = run(self.original, nudged, last.sizes).outputs
        allowed: dict[str, float] = {}
        for name, value in made.expected.items():
            finite = np.isfinite(value) & np.isfinite(found[name])
            if not finite.all():
                return None
            allowed[name] = max(WIDE_TOLERANCE, _CONDITION * error_of(found[name], value)[1])
        return replace(made, allowed=allowed)

    @cached_property
    def masks(self) -> frozenset[str]:
        """Inputs that conditions read."""
        return frozenset(a.tensor for e in self.original.einsums for a in accesses(e.where)) & set(self.original.inputs)

    def trial(
        self, sizes: Mapping[str, int], inputs: Arrays, tile: int | None, what: str = "", *, wide: bool = False
    ) -> Trial:
        return Trial(sizes, inputs, dict(run(self.original, inputs, sizes).outputs), tile, what, wide)


def _positive(a: NDArray[Any]) -> NDArray[Any]:
    return np.abs(a) if a.dtype.kind == "f" else a


def _emptied(a: NDArray[Any], value: float) -> NDArray[Any]:
    """An array whose first element along every axis is false, or far away on one side."""
    made = a.copy()
    if a.dtype.kind in "bf":
        for axis in range(a.ndim):
            np.moveaxis(made, axis, 0)[0] = False if a.dtype.kind == "b" else value
    return made


def _shapes(cascade: Cascade) -> Iterator[Mapping[str, int]]:
    first = test_extents(cascade)
    plain = [r for r in cascade.ranks if isinstance(cascade.ranks[r], Number)]
    seen = []
    for caps in ((), *_SHAPES):
        try:
            small = {r: min(first[r], caps[i % len(caps)]) for i, r in enumerate(plain)} if caps else {}
            sizes = test_extents(cascade, small)
        except InputError:
            continue
        if sizes not in seen:
            seen.append(sizes)
            yield sizes


def _words(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{r}={n}" for r, n in sizes.items())
