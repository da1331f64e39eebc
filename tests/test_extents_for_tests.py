"""Extents to execute a cascade at: what is given goes before the field ``test``, of which as much as can stays."""

import json

import pytest
from commandline import fusemodel

from fusemodel.cascade import load_cascade, parse_cascade
from fusemodel.errors import InputError
from fusemodel.numerics import test_extents as extents_for

SPLIT_K = {"b": 2, "h": 3, "p": 1, "m": 53, "z": 4, "e": 8, "f": 5, "c": 14}  # flash-decoding: m in z parts


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({"m": 5}, {"z": 2, "c": 3}),  # 4 parts of 2 are one too many
        ({"m": 6}, {"z": 2, "c": 3}),
        ({"m": 7}, {"z": 4, "c": 2}),  # nothing clashes
        ({"m": 5, "h": 1}, {"z": 2, "c": 3}),
        ({"z": 60}, {"m": 65536, "c": 1093}),  # no power of two up to 1024 is 60 parts: that of the file is
    ],
)
def test_only_what_clashes_is_dropped(given, changed):
    assert extents_for(load_cascade("flash-decoding"), given) == {**SPLIT_K, **given, **changed}


def test_the_first_of_the_file_is_dropped_where_there_is_a_choice():
    text = """
name: x
ranks: {k: 64, a: 8, c: 8, e: k / a / c}
test: {c: 2, a: 2, k: 8}
inputs: {X: [k], Y: [a, c, e]}
outputs: [Z]
einsums: |
  Z[k] = X[k] * W
  W[] = sum[a, c, e](Y[a, c, e])
"""
    cascade = parse_cascade(text)
    assert extents_for(cascade) == {"k": 8, "a": 2, "c": 2, "e": 2}
    # c or a must be 1
    assert extents_for(cascade, {"k": 2}) == {"k": 2, "a": 2, "c": 1, "e": 1}
    # neither alone will do
    assert extents_for(cascade, {"k": 3}) == {"k": 3, "a": 1, "c": 1, "e": 3}


@pytest.mark.parametrize("given", [{"m": 5, "z": 4}, {"m": 0}, {"q": 3}])
def test_what_cannot_be_is_an_error(given):
    with pytest.raises(InputError):
        extents_for(load_cascade("flash-decoding"), given)


def test_run_keeps_the_extents_of_the_file():
    """As many points as with the number of parts given; with the defaults of h, e and f there would be others."""
    found, same = (json.loads(fusemodel("run", "flash-decoding", "--json", *more).out) for more in (
        ["--set", "m=5"], ["--set", "m=5", "--set", "z=2"],
    ))  # fmt: skip
    assert found == same
    assert found["max_rel_error"] < 1e-12


def test_show_lists_no_reduction_over_a_batch_rank():
    """With heads as a batch rank, the rate of each is read, not summed over."""
    text = fusemodel("show", "lightning-attention").out
    (line,) = [x for x in text.splitlines() if x.split()[:1] == ["D"] and "=" not in x]
    assert line.split()[1:] == ["sub", "mul", "exp"]
