"""Independent functions that the numbers of a cascade are checked against."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from inspect import isfunction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusemodel.errors import InputError, Where, unknown
from fusemodel.library import reference_modules, references_dir
from fusemodel.numerics.labelled import Labelled, Problem, product, softmax

Reference = Callable[[Problem], Mapping[str, Any]]
Outputs = dict[str, NDArray[Any]]
_PACKAGE = "fusemodel_library_references"


def softmax_attention(problem: Problem, *, scaled: bool = False, causal: bool = False) -> Outputs:
    """``softmax(Q K^T) V`` over inputs Q, K and V, the maximum subtracted; perhaps divided by the square root of the
    number of features, and perhaps each query attending no later key.

    Ranks are told apart by where they stand: those in the output and in two inputs or more are batches, features are in
    Q and not in the output, keys in K and V, queries in Q and the output.
    """
    name, out = problem.only_output()
    q, k, v = (problem.input(n) for n in "QKV")
    batch = [r for r in out if sum(r in x.ranks for x in (q, k, v)) > 1]
    scores = product(q, k, batch)
    if scaled:
        features = math.prod(problem.extents[r] for r in q.ranks if r not in out)
        scores = Labelled(scores.values / math.sqrt(features), scores.ranks)
    keys = [r for r in k.ranks if r in v.ranks and r not in out]
    if causal:
        queries = [r for r in q.ranks if r in out and r not in batch]
        full = scores.matrices(batch, queries, keys)
        earlier = np.arange(full.shape[-2])[:, None] >= np.arange(full.shape[-1])
        ranks = (*batch, *queries, *keys)
        shape = [problem.extents[r] for r in ranks]
        scores = Labelled(np.where(earlier, full, -np.inf).reshape(shape), ranks)
    return {name: product(softmax(scores, keys), v, batch).ordered(out)}


def matrix_product(problem: Problem) -> Outputs:
    """The product of two inputs, summed over the ranks that both hold and the output lacks."""
    name, out = problem.only_output()
    if len(problem.inputs) != 2:
        raise InputError(f"the reference multiplies two inputs, the cascade has {len(problem.inputs)}")
    a, b = problem.inputs.values()
    return {name: product(a, b, out).ordered(out)}


def linear_layers(problem: Problem) -> Outputs:
    """The six matrix products of a transformer layer: Q, K and V from X, and FFN2 from AV (inputs X, AV, WQ, WK, WV,
    WZ, W1, W2)."""
    x = problem.input("X")
    made = {n: product(problem.input(f"W{n}"), x) for n in "QKV"}
    made["FFN2"] = _feed_forward(problem, problem.input("AV"))
    return {n: made[n].ordered(ranks) for n, ranks in problem.outputs.items() if n in made}


def layer(problem: Problem) -> Outputs:
    """A transformer layer without norms, activation and scaling: projections of X, softmax attention of every position
    over all, and the products with WZ, W1 and W2."""
    name, out = problem.only_output()
    x = problem.input("X")
    q, k, v = (product(problem.input(f"W{n}"), x) for n in "QKV")
    kept = [r for r in x.ranks if r in out]
    if not kept:
        raise InputError("the output of the reference holds no position of X")
    position = kept[-1]  # the ranks before it are batches
    other = {position: f"{position}'"}
    batch = [*kept[:-1], *(r for r in problem.input("WQ").ranks if r in problem.input("WZ").ranks)]
    weights = softmax(product(q, k.renamed(other), batch), [other[position]])
    result = _feed_forward(problem, product(weights, v.renamed(other), batch))
    return {name: result.ordered(out)}


def _feed_forward(problem: Problem, attended: Labelled) -> Labelled:
    for weights in ("WZ", "W1", "W2"):
        attended = product(problem.input(weights), attended)
    return attended


_REFERENCES: dict[str, Reference] = {
    "softmax_attention": softmax_attention,
    "scaled_softmax_attention": partial(softmax_attention, scaled=True),
    "causal_softmax_attention": partial(softmax_attention, causal=True),
    "scaled_causal_softmax_attention": partial(softmax_attention, scaled=True, causal=True),
    "matrix_product": matrix_product,
    "linear_layers": linear_layers,
    "layer": layer,
}


def register_reference(name: str, function: Reference) -> None:
    """Make a reference known by the name that a cascade's field ``reference`` gives: it takes a :class:`Problem` and
    returns an array for each output, axes in the order of its ranks."""
    if not name or not callable(function):
        raise InputError(f"the reference {name!r} cannot be called", expected="a name and a function of a Problem")
    _REFERENCES[name] = function


def reference_named(name: str) -> Reference:
    """A registered reference, or FAMILY.FUNCTION of the library's; InputError with the nearest name for any other."""
    if name in _REFERENCES:
        return _REFERENCES[name]
    family, dot, function = name.partition(".")
    if not dot:
        raise unknown("reference", name, _REFERENCES)
    if family not in reference_modules():
        raise unknown("family of references", family, reference_modules())
    functions = _functions_of(family)
    if function not in functions:
        raise unknown(f"reference of {family!r}", function, functions)
    return partial(_on_arrays, functions[function])


@cache
def _functions_of(family: str) -> dict[str, Callable[..., Any]]:
    """The public functions of one Python file of the library; never of a file that a user names."""
    folder = references_dir()
    if _PACKAGE not in sys.modules:
        spec = spec_from_file_location(_PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)])
        if spec is None or spec.loader is None:
            raise InputError("the library has no references", Where(str(folder)))
        package = module_from_spec(spec)
        sys.modules[_PACKAGE] = package
        spec.loader.exec_module(package)
    module = import_module(f"{_PACKAGE}.{family}")
    return {n: f for n, f in vars(module).items() if isfunction(f) and f.__module__ == module.__name__ and n[0] != "_"}


def _on_arrays(function: Callable[..., Any], problem: Problem) -> Outputs:
    """Call a function of (arrays by name, extents): axes are those of the file, batch ranks in front."""
    made = function({n: x.values for n, x in problem.inputs.items()}, dict(problem.extents))
    return made if isinstance(made, dict) else {problem.only_output()[0]: made}
