"""Spaces of architectures: what their files say, and messages for what they cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from commandline import MARK, fusemodel, refused, write

from fusemodel.arch import load_architecture, parse_architecture
from fusemodel.errors import InputError
from fusemodel.explore.problem import canonical
from fusemodel.explore.space import load_space, parse_space
from fusemodel.library import names

HEAD = "arch: fusemax-cloud\ncascades: [attention-1pass]\n"


def values(text: str) -> list[list[float]]:
    return [list(m.values.values()) for m in parse_space(HEAD + text).machines]


def test_lists_ranges_and_powers() -> None:
    assert values("vary: {a: [4, 1, 4], b: 16K}\n") == [[4, 16384], [1, 16384]]
    assert values("vary: {a: {from: 16, to: 512, times: 2}}\n") == [[16], [32], [64], [128], [256], [512]]
    assert values("vary: {a: {from: 1, to: 2, step: 0.25}}\n") == [[1], [1.25], [1.5], [1.75], [2]]
    assert values("vary: {a: {from: 3, to: 5, step: 4}}\n") == [[3]]
    assert values("") == [[]]


def test_the_last_variable_is_the_fastest() -> None:
    assert values("vary: {a: [1, 2], b: [3, 4]}\n") == [[1, 3], [1, 4], [2, 3], [2, 4]]


def test_fields_are_set_by_expressions() -> None:
    space = parse_space(HEAD + """
vary: {side: [64], mib: [4], macs: [3]}
let: {lanes: 2 * side}
set:
  clock: 1 GHz
  levels.global_buffer.size: mib MiB
  levels.global_buffer.area: base * mib / 16
  levels.global_buffer.read: 700 * mib pJ
  levels.global_buffer.write: base * sqrt(mib / 16) + 1
  levels.l1: {size: 'max(mib, 8) * side kB'}
  units.array_2d.shape: [side, side // 2]
  units.array_2d.shape.1: 2 * side
  units.array_1d.shape: [lanes]
  units.array_1d.ops.exp: {as: macs mac}
  units.array_1d.ops.log: null
extents: {m0: lanes}
""")  # fmt: skip
    (machine,) = space.machines
    base, arch = load_architecture("fusemax-cloud"), machine.arch
    old, new = base.levels["global_buffer"], arch.levels["global_buffer"]
    assert arch.clock_hz == 1e9
    assert (new.size_bytes, new.read_pj) == (4 * 2**20, 2800)
    assert new.area_um2 == pytest.approx(old.area_um2 / 4)
    assert new.write_pj == pytest.approx(old.write_pj / 2 + 1)
    assert arch.levels["l1"].size_bytes == 8 * 64 * 1000
    assert arch.units["array_2d"].shape == {"x": 64, "y": 128}
    assert arch.units["array_1d"].shape == {"x": 128}
    assert arch.units["array_1d"].ops["exp"].cycles == 3 * base.units["array_1d"].ops["mac"].cycles
    assert "log" not in arch.units["array_1d"].ops
    assert machine.extents == {"m0": 128}
    assert machine.area_mm2 == pytest.approx(sum(arch.area_um2().values()) / 1e6)


def test_variants_lay_their_fields_over_those_of_the_space() -> None:
    space = parse_space(HEAD + """
vary: {side: [16, 32]}
set: {units.array_1d.shape: [side], clock: 1 GHz}
variants:
  - {name: slow}
  - {name: fast, set: {clock: 2 GHz}}
  - {name: other, arch: flat-cloud}
""")  # fmt: skip
    found = [(m.values["variant"], m.arch.clock_hz, m.arch.name) for m in space.machines[::2]]
    assert found == [("slow", 1e9, "fusemax-cloud"), ("fast", 2e9, "fusemax-cloud"), ("other", 1e9, "flat-cloud")]
    assert {m.arch.units["array_1d"].size for m in space.machines} == {16, 32}


def test_conditions_leave_points_out() -> None:
    space = parse_space(HEAD + "vary: {a: [1, 2, 3, 4], b: [1, 2]}\nwhere: [a % 2 == 0, 'a > b and a != 3 * b']\n")
    assert [tuple(m.values.values()) for m in space.machines] == [(2, 1), (4, 1), (4, 2)]
    assert space.left_out == 5


def test_points_of_equal_area() -> None:
    space = parse_space(HEAD + """
vary: {side: [64, 128, 192, 256]}
let: {mib: (400 - 0.006 * side * side) / 6}
set:
  units.array_2d.shape: [side, side]
  levels.global_buffer.size: mib MiB
  levels.global_buffer.area: 6 * mib mm^2
where: 380 <= area_mm2 <= 420
""")  # fmt: skip
    assert len(space.machines) >= 2
    assert all(380 <= m.area_mm2 <= 420 for m in space.machines)
    sizes = [m.arch.levels["global_buffer"].size_bytes or 0 for m in space.machines]
    assert sizes == sorted(sizes, reverse=True)


def test_what_a_mapping_does_not_depend_on_is_no_other_problem() -> None:
    arch = load_architecture("fusemax-cloud")
    text = names("archs")["fusemax-cloud"].read_text("utf-8")
    renamed = parse_architecture(text.replace("name: fusemax-cloud", "name: x").replace("94.17", "95.17"))
    assert canonical(renamed) == canonical(arch)
    assert canonical(parse_architecture(text.replace("16 MiB", "8 MiB"))) != canonical(arch)


@pytest.mark.parametrize("name", names("spaces"))
def test_every_space_of_the_library_can_be_used(name: str) -> None:
    space = load_space(name)
    assert space.about
    assert space.source
    assert len({canonical(m.arch) for m in space.machines}) == len(space.machines)


BAD = {
    "field": (f"{MARK}var: {{a: [1]}}\n", "unknown field 'var'", "did you mean 'vary'?"),
    "path": (f"set: {{{MARK}units.array2d.shape: [1]}}\n", "unknown part of an architecture 'array2d'", "'array_2d'?"),
    "last": (f"set: {{{MARK}units.array_2d.shap: [1]}}\n", "unknown field 'shap'", "did you mean 'shape'?"),
    "variable": (
        f"vary: {{side: [1]}}\nset: {{units.array_1d.shape: [side * {MARK}sid]}}\n",
        "variable 'sid'",
        "'side'?",
    ),
    "syntax": (f"vary: {{side: [1]}}\nset: {{units.array_1d.shape: [side * {MARK}* 2]}}\n", "unexpected"),
    "whole": (f"vary: {{a: [3]}}\nset: {{units.array_1d.shape: [{MARK}a / 2]}}\n", "1.5", "a whole number", "a = 3"),
    "unit": (f"vary: {{a: [3]}}\nset: {{levels.dram.bandwidth: {MARK}a GHz}}\n", "is not a bandwidth", "(at a = 3)"),
    "none": (f"vary: {{a: [3]}}\nset: {{levels.dram.bandwidth: {MARK}a}}\n", "has no unit", "`400 GiB/s`"),
    "base": (f"vary: {{a: [3]}}\nset: {{levels.dram.kind: {MARK}base * a}}\n", "uses 'base'", "no number"),
    "zero": (f"vary: {{a: [0]}}\nset: {{clock: {MARK}1 / a GHz}}\n", "cannot be computed at a = 0", "division by zero"),
    "range": (f"vary: {{a: {MARK}{{from: 1, to: 2}}}}\n", "'a' is no range", "times: 2"),
    "endless": (f"vary: {{a: {MARK}{{from: 1, to: 2, step: 0}}}}\n", "never gets from 1 to 2"),
    "long": (f"vary: {{a: {MARK}{{from: 1, to: 1G, step: 1}}}}\n", "more than 100000 values"),
    "many": (f"{MARK}vary: {{a: {{from: 1, to: 999, step: 1}}, b: {{from: 1, to: 999, step: 1}}}}\n", "998001 points"),
    "value": (f"vary: {{a: [1, {MARK}4 MiB]}}\n", "a value of 'a' is '4 MiB'", "its unit stands where it is used"),
    "name": (f"vary: {{{MARK}max: [1]}}\n", "'max' cannot name a variable"),
    "empty": (f"vary: {{a: {MARK}[]}}\n", "'a' has no values"),
    "nothing": (f"vary: {{a: [1]}}\nwhere: {MARK}a > 1\n", "none of 1 points meets the conditions"),
    "objective": (f"objectives: [{MARK}latencies]\n", "'latencies'", "did you mean 'latency'?"),
    "arch": (f"variants: [{{name: x, arch: {MARK}fusemax-clod}}]\n", "unknown arch", "'fusemax-cloud'?"),
    "twice": (f"variants: [{{name: x}}, {{name: {MARK}x}}]\n", "two variants have the name 'x'"),
    "both": (f"vary: {{a: [1]}}\nlet: {{{MARK}a: 2}}\n", "'a' is varied and given"),
}


@pytest.mark.parametrize("case", BAD)
def test_messages(case: str, tmp_path: Path) -> None:
    text, *parts = BAD[case]
    place = write(tmp_path / "space.yaml", HEAD + text)
    refused(fusemodel("show", tmp_path / "space.yaml"), place, *parts)


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    refused(
        fusemodel("explore", "--arch-space", names("archs")["flat-cloud"]), "", "this is an architecture", "a space"
    )
    with pytest.raises(InputError, match="'cascades' is missing"):
        parse_space("arch: flat-cloud\n")
