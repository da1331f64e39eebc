"""A sweep: machines of one array with five bandwidths, each mapped for three models. 4,000 such rows in ten minutes on
two cores are 0.3 s of one core a row."""

from __future__ import annotations

from fusemodel.explore.problem import solve, tasks_of
from fusemodel.explore.space import load_space
from fusemodel.explore.sweep import _problems


def test_machines_that_share_an_array(benchmark) -> None:
    space = load_space("arrays-buffers-bandwidths")
    tasks = tasks_of([p for _, p in _problems(space, None)])
    task = next(t for t in tasks if t.problems[0].arch.units["array_2d"].size == 256 * 256 and len(t.problems) == 15)
    found = benchmark.pedantic(solve, args=(task,), rounds=3)
    assert len(found) == 15
    benchmark.extra_info["rows"] = len(found)


def test_a_thousand_machines_are_read(benchmark) -> None:
    from fusemodel.explore.space import build_space
    from fusemodel.library import names
    from fusemodel.yamlfile import read_yaml

    path = names("spaces")["arrays-buffers-bandwidths"]
    assert len(benchmark.pedantic(lambda: build_space(read_yaml(path)).machines, rounds=1)) == 1000
