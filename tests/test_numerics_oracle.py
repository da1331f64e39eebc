"""Random cascades: the interpreter on arrays against one that computes element by element."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from references.oracle import Oracle
from strategies import cascade_texts

from fusemodel.cascade import extents_of, parse_cascade
from fusemodel.numerics import random_inputs, run

SETTINGS = settings(
    max_examples=250, derandomize=True, database=None, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


def small_numbers(cascade, extents):
    """Inputs in halves, so that ties are common and sums of few are exact."""
    arrays = random_inputs(cascade, extents)
    return {n: np.round(2 * a) / 2 if a.dtype.kind == "f" else a for n, a in arrays.items()}


def equal(x: float, y: float) -> bool:
    return x == y or (x != x and y != y) or abs(x - y) <= 1e-9 * max(1.0, abs(y))


@SETTINGS
@given(cascade_texts())
def test_equals_an_interpreter_of_single_elements(text):
    cascade = parse_cascade(text)
    extents = extents_of(cascade)
    inputs = small_numbers(cascade, extents)
    result = run(cascade, inputs, extents)
    oracle = Oracle(cascade, inputs, extents)
    for name, values in result.outputs.items():
        present = result.present.get(name)
        for at in np.ndindex(*values.shape):
            expected = oracle.element(name, at)
            assert (expected is not None) == bool(present is None or present[at]), (name, at)
            assert expected is None or equal(float(values[at]), float(expected)), (name, at)


@settings(SETTINGS, max_examples=60)
@given(cascade_texts())
def test_single_precision_is_close_and_not_widened(text):
    cascade = parse_cascade(text)
    extents = extents_of(cascade)
    inputs = small_numbers(cascade, extents)
    result = run(cascade, inputs, extents, dtype="float32")
    assert {v.dtype.name for v in result.tensors.values()} <= {"float32", "int64", "bool"}
