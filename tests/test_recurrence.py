"""Cycles of dependences, against NetworkX; and how long a recurrence waits, by hand."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusemodel.arch import parse_architecture
from fusemodel.cascade import parse_cascade
from fusemodel.mapping.load import design_of, group_of
from fusemodel.mapping.spec import Candidates
from fusemodel.model import evaluate
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


UNITS = """
name: three-units
clock: 1 GHz
word: 8 bit
levels:
  dram: {kind: dram, access: 8 bit, read: 1 pJ, write: 1 pJ}
units:
  a: {shape: [1], registers: {words: 99}, ops: {exp: {cycles: 5}}}
  b: {shape: [1], registers: {words: 99}, ops: {max: {cycles: 5}}}
  c: {shape: [1], registers: {words: 99}, ops: {add: {cycles: 5}}}
  d: {shape: [1], registers: {words: 99}, ops: {copy: }}
"""
STEPPED = """
name: stepped
ranks: {i: 8, p: 4}
inputs: {A: [i, p]}
outputs: [Z]
einsums: |
  T[i, p] = exp(S[i, p])
  U[i, p] = max(T[i, p], A[i, p])
  S[0, p] = 0
  S[i+1, p] = U[i, p] + A[i, p]
  Z[p] = S[I, p]
"""


@pytest.mark.parametrize(("inside", "groups"), [(1, 4), (2, 2), (3, 2), (4, 1)])
def test_a_recurrence_waits_in_every_group_of_tiles(inside, groups):
    """A step takes 15 cycles on the three units, in each group of tiles of its 8 steps: also where the last group has
    one tile only (3 and 1 of 4). Units are busy for 5 cycles of 32 tiles."""
    cascade, arch = parse_cascade(STEPPED), parse_architecture(UNITS)
    fields = {
        "tile": {"p": ["p2", "p1"], "p1": inside}, "loops": ["p2", "i", "p1"],
        "bind": {"T": {"unit": "a"}, "U": {"unit": "b"}, "S": {"unit": "c"}, "Z": {"unit": "d"}},
    }  # fmt: skip
    design = design_of("x", cascade, arch, [Candidates((group_of(fields, cascade, arch),), ())])
    cycles = evaluate(design).groups[0].schedule_cycles
    assert cycles == pytest.approx(max(groups * 8 * 15, 32 * 5), rel=1e-12)
