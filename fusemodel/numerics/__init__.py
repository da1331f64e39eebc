"""Executing cascades on arrays: values, references to compare with, random inputs, operators from Python."""

from fusemodel.numerics.compare import Comparison, compare
from fusemodel.numerics.inputs import random_inputs, test_extents
from fusemodel.numerics.interpret import Result, run
from fusemodel.numerics.operators import register
from fusemodel.numerics.reference import register_reference

__all__ = [
    "Comparison", "Result", "compare", "random_inputs", "register", "register_reference", "run", "test_extents",
]  # fmt: skip
