"""The longest chain of operations against a walk over every point of small cascades, and against hand-derived forms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusemodel.analysis.critical import critical_path
from fusemodel.cascade import Cascade, extents_of, format_cascade, parse_cascade
from fusemodel.cascade.ir import (
    Access,
    Apply,
    Einsum,
    Expr,
    Extent,
    Number,
    RankValue,
    reduced_ranks,
)


def cascade_of(ranks: str, inputs: str, output: str, *einsums: str) -> Cascade:
    lines = "".join(f"  {e}\n" for e in einsums)
    return parse_cascade(f"name: x\nranks: {{{ranks}}}\ninputs: {{{inputs}}}\noutputs: [{output}]\neinsums: |\n{lines}")


@cache
def _form(text: str) -> Any:
    cascade = parse_cascade(text)
    return critical_path(cascade, extents_of(cascade))[0]


def measured(cascade: Cascade, sizes: Mapping[str, int]) -> int:
    """The longest chain at some extents; the symbolic form, made at other extents, must say the same."""
    elsewhere = _form(format_cascade(cascade))
    _, found = critical_path(cascade, extents_of(cascade, sizes))
    if min(sizes.values()) > 1:
        assert elsewhere.subs({x: sizes[str(x).lower()] for x in elsewhere.free_symbols}) == found
    return found


def walked(cascade: Cascade, sizes: Mapping[str, int]) -> int:
    """The longest chain by walking every element: an operator is one operation, a reduction of n points a binary tree
    under its deepest point. Elements that are absent have no chain (None)."""

    def of(expr: Expr, env: Mapping[str, int]) -> int | None:
        match expr:
            case Access(tensor, indices):
                return element(tensor, tuple(_coordinate(i, env, sizes) for i in indices))
            case Apply("coalesce", (first, other)):
                return found if (found := of(first, env)) is not None else of(other, env)
            case Apply(_, args):
                parts = [of(a, env) for a in args]
                return None if None in parts else 1 + max(p for p in parts if p is not None)
        return 0

    @cache
    def element(tensor: str, at: tuple[int, ...]) -> int | None:
        held = zip(cascade.full_ranks(tensor), at, strict=True)
        if any(not 0 <= i < sizes[r] + (r in cascade.tensors[tensor].iterative) for r, i in held):
            return None
        for e in cascade.explicit:
            env = _solved(e, at) if e.name == tensor else None
            if env is not None:
                reduced = reduced_ranks(e)
                points = [dict(zip(reduced, p, strict=True)) for p in product(*(range(sizes[r]) for r in reduced))]
                found = [d for p in points if (d := of(e.body, env | p)) is not None]
                return max(found) + (len(points) - 1).bit_length() if found else None
        return 0

    held = {t: [(r, r in cascade.tensors[t].iterative) for r in cascade.full_ranks(t)] for t in cascade.outputs}
    every = ((t, product(*(range(sizes[r] + one_more) for r, one_more in ranks))) for t, ranks in held.items())
    return max(d for t, ends in every for at in ends if (d := element(t, at)) is not None)


def _coordinate(expr: Expr, env: Mapping[str, int], sizes: Mapping[str, int]) -> int:
    match expr:
        case Number(value):
            return int(value)
        case Extent(rank):
            return sizes[rank]
        case RankValue(rank):
            return env[rank]
        case Apply("+" | "-" as op, (a, b)):
            return _coordinate(a, env, sizes) + (1 if op == "+" else -1) * _coordinate(b, env, sizes)
    raise AssertionError(expr)


def _solved(e: Einsum, at: tuple[int, ...]) -> dict[str, int] | None:
    """The point that makes an element; None if the equation does not."""
    env: dict[str, int] = {}
    for index, i in zip(e.target.indices, at, strict=True):
        match index:
            case Number(value) if value != i:
                return None
            case RankValue(rank):
                env[rank] = i
            case Apply("+", (RankValue(rank), Number(1))):
                if i == 0:
                    return None
                env[rank] = i - 1
    return env


@pytest.mark.parametrize("p", [1, 2, 3, 9, 10, 11, 256])
@pytest.mark.parametrize("c", [2, 512])
def test_a_chain_that_overtakes_late(p: int, c: int) -> None:
    """The sums over p are short at first, and longer than the product of one p after all of them."""
    found = cascade_of(
        "p: 256, c: 512", "X: [p], T: [c], Y: [c, p]", "O",
        "R[0] = 0", "R[p+1] = R[p] + X[p]", "A[p] = T[c] * Y[c, p]", "O[p] = R[p+1] * A[p]",
    )  # fmt: skip
    assert measured(found, {"p": p, "c": c}) == max(p, 1 + (c - 1).bit_length()) + 1


def test_only_what_the_chain_goes_through_counts() -> None:
    """The exponential of each step needs no step before it: one operation a step, and two before the first."""
    found = cascade_of("p: 9", "X: [p]", "O", "R[0] = 0", "R[p+1] = R[p] + exp(abs(X[p]))", "O[] = R[P]")
    assert measured(found, {"p": 100}) == 102


def test_steps_that_overlap_and_loops_that_wait() -> None:
    sums = ("R[0] = 0", "R[p+1] = R[p] + X[p]")
    then = ("W[0] = 0", "W[p+1] = W[p] + V[p]", "O[] = W[P]")
    beside = cascade_of("p: 9", "X: [p]", "O", *sums, "V[p] = exp(R[p+1])", *then)
    assert measured(beside, {"p": 50}) == 50 + 1 + 1
    behind = cascade_of("p: 9", "X: [p]", "O", *sums, "V[p] = exp(X[p] / R[P])", *then)
    assert measured(behind, {"p": 50}) == 50 + 2 + 50
    # a short sum that is waited for, and a long one that is not
    both = cascade_of(
        "p: 9", "X: [p]", "O", *sums,
        "B[0] = 0", "B[p+1] = B[p] * 2 + X[p]", "V[p] = B[p+1] - R[P]", *then,
    )  # fmt: skip
    assert measured(both, {"p": 50}) == max(2 * 50 + 1 + 1, 50 + 1 + 50)


def test_states_that_take_turns() -> None:
    """A round through both takes two steps and four operations; an odd step more is the short one."""
    turns = ("A[0] = X", "A[p+1] = exp(B[p])", "B[0] = 0", "B[p+1] = exp(exp(abs(A[p])))")
    found = cascade_of("p: 9", "X: []", "O", *turns, "O[] = A[P]")
    for p in range(1, 12):
        assert measured(found, {"p": p}) == p // 2 * 4 + p % 2


def test_a_state_of_two_steps_before_is_half_as_often_waited_for() -> None:
    found = cascade_of("p: 9", "X: [p]", "O", "A[0] = 0", "A[p+1] = coalesce(A[p - 1], 0) + X[p]", "O[] = A[P]")
    assert [measured(found, {"p": p}) for p in (2, 3, 4, 5, 20)] == [1, 2, 2, 3, 10]


def test_a_loop_in_a_loop() -> None:
    """In each tile a running product over the state before it, and then the state."""
    found = cascade_of(
        "i: 9, j: 9", "X: [i, j]", "O",
        "S[0] = 0", "L[i, 0] = S[i] * 2", "L[i, j+1] = L[i, j] * exp(X[i, j])", "S[i+1] = S[i] + L[i, J]", "O[] = S[I]",
    )  # fmt: skip
    for i, j in ((2, 3), (5, 2), (7, 7), (1, 4)):
        assert measured(found, {"i": i, "j": j}) == i * (1 + j + 1)


# Random cascades along p: states, what is made of them at their step, and what needs them whole

OPERATIONS = ("{a} + {b}", "{a} * exp({b})", "exp(abs({a})) - {b}", "abs(exp({a}))")


@st.composite
def equations(draw: st.DrawFn) -> tuple[str, ...]:
    def made(of: list[str]) -> str:
        one, other = draw(st.sampled_from(of)), draw(st.sampled_from(of))
        return draw(st.sampled_from(OPERATIONS)).format(a=one, b=other)

    lines = ["D[p] = T[c] * Z[c, p]"]
    along, whole = ["X[p]", "D[p]"], ["Y"]  # what is there at a step, and what has no steps
    for phase in range(draw(st.integers(1, 2))):
        states = [f"R{phase}{i}" for i in range(draw(st.integers(1, 2 if phase else 3)))]
        kept = [s for s in states if draw(st.booleans())]  # what it starts from is in all its steps
        lines += [f"{s}[0] = {draw(st.sampled_from(whole)) if s in kept else 0}" for s in states]
        here = [*along, *whole, *(f"{s}[p]" for s in states)]
        for i, s in enumerate(states):
            lines.append(f"{s}[p+1] = {f'{s}[p] + ' if s in kept else ''}{made(here)}")
            here.append(f"{s}[p+1]")
            if draw(st.booleans()):
                lines.append(f"V{phase}{i}[p] = {s}[p+1] * {made(here)}")
                here += [f"V{phase}{i}[p]", f"coalesce(V{phase}{i}[p - 1], 0)"]
        along = [x for x in here if x not in whole]
        state = draw(st.sampled_from(states))
        ends = (f"{state}[P] * Y", f"sum[p]({state}[p+1] * X[p])", f"max[p]({draw(st.sampled_from(along))})")
        lines.append(f"W{phase}[] = {draw(st.sampled_from(ends))}")
        whole.append(f"W{phase}")
    names = {line.split("[")[0] for line in lines}
    read = {n for n in names for line in lines if re.search(rf"= .*\b{n}\b", line)}
    lines.append(f"O[p] = {' + '.join(draw(st.permutations(along))[:2])} * {whole[-1]}")
    inputs = {"X": "p", "Y": "", "T": "c", "Z": "c, p"}
    used = [f"{n}: [{r}]" for n, r in inputs.items() if any(re.search(rf"\b{n}\b", line) for line in lines)]
    outputs = ["O", *sorted(names - read - {whole[-1]})]
    return (", ".join(used), ", ".join(outputs), *lines)


@settings(max_examples=40, deadline=None)
@given(equations(), st.lists(st.tuples(st.integers(1, 9), st.sampled_from([1, 2, 5, 40])), min_size=2, max_size=3))
def test_the_longest_chain_is_that_of_all_points(found: tuple[str, ...], sizes: list[tuple[int, int]]) -> None:
    cascade = cascade_of("p: 5, c: 6", *found)
    for p, c in sizes:
        assert measured(cascade, {"p": p, "c": c}) == walked(cascade, {"p": p, "c": c})
