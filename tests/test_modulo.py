"""Modulo schedules: legal by their definition, and as short as a recurrence and a unit allow."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fusemodel.simulate.modulo import Operation, Precedence, schedule

OPERATIONS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=8)


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(OPERATIONS, st.data())
def test_schedules_are_legal(some, data) -> None:
    """No unit does two things at once, modulo the period; whatever is needed is there."""
    operations = [Operation(u, float(busy)) for u, busy in some]
    index = st.integers(0, len(operations) - 1)
    needs = [
        Precedence(a, b, 0 if a < b else 1 + distance, operations[a].busy + drain)
        for a, b, distance, drain in data.draw(
            st.lists(st.tuples(index, index, st.integers(0, 2), st.sampled_from([0.0, 5.0, 20.0])), max_size=10)
        )
    ]
    period = data.draw(st.sampled_from([1.0, 1.5, 4.0])) * max(
        1.0, *(sum(o.busy for o in operations if o.unit == u) for u in range(3))
    )
    found = schedule(operations, needs, period)
    if found is None:
        return
    for n in needs:
        assert found[n.later] >= found[n.earlier] + n.delay - n.distance * period - 1e-3
    for u in range(3):
        spans = sorted((found[i] % period, o.busy) for i, o in enumerate(operations) if o.unit == u and o.busy)
        for (a, long), (b, _) in zip(spans, [*spans[1:], *[(s + period, 0.0) for s, _ in spans[:1]]], strict=True):
            assert a + long <= b + 1e-3


def test_two_units_take_turns_when_they_may_and_only_then() -> None:
    """Products before and after a softmax of as long as both: with room for two tiles nothing waits, with room for one
    each waits for the other. Without room, no period of the busiest unit will do."""
    work = [Operation(0, 4.0), Operation(1, 8.0), Operation(0, 4.0)]  # QK, softmax, AV
    chain = [Precedence(0, 1, 0, 4.0), Precedence(1, 2, 0, 8.0)]
    for copies, period, feasible in ((1, 8.0, False), (1, 15.9, False), (1, 16.0, True), (2, 8.0, True)):
        place = Precedence(2, 0, copies, 4.0)  # the next tile comes where one has been read
        assert (schedule(work, [*chain, place], period) is not None) == feasible


def test_a_recurrence_bounds_the_period() -> None:
    loop = [Precedence(0, 1, 0, 3.0 + 256.0), Precedence(1, 0, 2, 7.0)]
    work = [Operation(0, 3.0), Operation(1, 7.0)]
    assert schedule(work, loop, 132.9) is None
    assert schedule(work, loop, 133.0) is not None
