"""Cycles of dependences, against NetworkX."""

from __future__ import annotations

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from fusemodel.model.recurrence import cycles

NODES = list("abcdef")


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(st.sets(st.tuples(st.sampled_from(NODES), st.sampled_from(NODES)), max_size=12))
def test_every_elementary_cycle_is_found_once(edges):
    graph = nx.DiGraph(sorted(edges))
    found = [tuple(c) for c in cycles(NODES, edges)]
    expected = {_from_first(c) for c in nx.simple_cycles(graph)}
    assert len(found) == len(set(found))
    assert set(found) == expected


def _from_first(cycle):
    i = cycle.index(min(cycle))
    return tuple(cycle[i:] + cycle[:i])
