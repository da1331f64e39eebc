"""Architecture files: units in every form, operations, stand-ins, areas, and the example of the design page."""

from __future__ import annotations

from pathlib import Path

import pytest
from commandline import changed, text_of

from fusemodel import evaluate, parse_architecture
from fusemodel.arch import Architecture
from fusemodel.arch.spec import STAND_INS, find_op
from fusemodel.arch.units import KINDS, quantity
from fusemodel.errors import InputError
from fusemodel.library import names
from fusemodel.model import Evaluation

EXAMPLE = """
name: fusemax-cloud
clock: 940 MHz                       # numbers carry units (parsed with pint)
word: 16 bit
levels:                              # outermost first
  dram:          {kind: dram, bandwidth: 400 GiB/s, access: 64 bit, read: 249.6 pJ, write: 249.6 pJ}
  global_buffer: {kind: sram, size: 16 MiB, access: 512 B, read: 11200 pJ, write: 11200 pJ, area: 94.18 mm^2}
units:
  array_2d: {shape: [256, 256], registers: {words: 12, read: 0.653 pJ, write: 0.570 pJ},
             ops: {mac: {cycles: 1, energy: 17.16 pJ}, max: {energy: 0.028 pJ}, exp: {as: 6 mac}}, reduce: [y]}
  array_1d: {shape: [256], ops: {mac: {energy: 17.16 pJ}, max: {energy: 0.028 pJ}, exp: {as: 6 mac},
             divide: {energy: 36.25 pJ}}, reduce: [x]}
"""


def machine(*changes: tuple[str, str]) -> Architecture:
    return parse_architecture(changed("fusemax-cloud", *changes))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("940 MHz", "frequency", 940e6),
        ("940MHz", "frequency", 940e6),
        ("  0.94   GHz ", "frequency", 940e6),
        ("9.4e8 Hz", "frequency", 940e6),
        ("9.4e8Hz", "frequency", 940e6),
        ("9.4e+5 kilohertz", "frequency", 940e6),
        ("400 GiB/s", "bandwidth", 400 * 2**30),
        ("400 GiB / s", "bandwidth", 400 * 2**30),
        ("3.35 TB/s", "bandwidth", 3.35e12),
        ("200 Gbit/s", "bandwidth", 25e9),
        ("64 bit", "bytes", 8),
        ("16 bit", "bytes", 2),
        ("512 B", "bytes", 512),
        ("4 bytes", "bytes", 4),
        ("16 MiB", "bytes", 2**24),
        ("228 KiB", "bytes", 228 * 2**10),
        ("1 kB", "bytes", 1000),
        ("11200 pJ", "energy", 11200),
        ("11.2 nJ", "energy", 11200),
        ("17 fJ", "energy", 0.017),
        ("0 pJ", "energy", 0),
        ("94.18 mm^2", "area", 94.18e6),
        ("94.18 mm**2", "area", 94.18e6),
        ("1545 um^2", "area", 1545),
        ("4 us", "time", 4e-6),
        ("4 µs", "time", 4e-6),
        ("12 W", "power", 12),
    ],
)
def test_units(text: str, kind: str, value: float) -> None:
    assert quantity(text, kind, positive=False) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_usual_units_are_of_their_kind(kind: str) -> None:
    _, example, usual = KINDS[kind]
    assert quantity(example, kind) > 0
    assert all(quantity(f"1 {unit}", kind) > 0 for unit in usual)


@pytest.mark.parametrize(
    "text",
    ["", " ", "MHz", "940", "940 ", "940 M Hz", "940 MHz MHz", "9 9 MHz", "1e MHz", "940 MHz2", "940 2 MHz", "- MHz",
     "940 MHz; 1", "940 (MHz", "940 MHz ** 1e9", "940 MHz ** 9 ** 9 ** 9", "9" * 100 + " MHz", "940 \0", "940 [time]"],
)  # fmt: skip
def test_texts_that_are_no_frequency(text: str) -> None:
    with pytest.raises(ValueError, match="expected a frequency such as `940 MHz`"):
        quantity(text, "frequency")


@pytest.mark.parametrize("value", [None, True, 1, 1.5, [], {}])
def test_values_that_are_no_quantity(value: object) -> None:
    with pytest.raises(ValueError, match="expected a frequency"):
        quantity(value, "frequency")


def test_the_example_of_the_design_page() -> None:
    arch = parse_architecture(EXAMPLE)
    assert (arch.clock_hz, arch.word_bytes, arch.outermost) == (940e6, 2, "dram")
    assert list(arch.levels) == ["dram", "global_buffer"]
    buffer = arch.levels["global_buffer"]
    assert (buffer.kind, buffer.size_bytes, buffer.access_bytes, buffer.read_pj) == ("sram", 2**24, 512, 11200)
    assert arch.levels["dram"].bandwidth_bytes_per_s == 400 * 2**30
    array = arch.units["array_2d"]
    assert (dict(array.shape), array.size, array.reduce) == ({"x": 256, "y": 256}, 2**16, {"y"})
    assert array.registers is not None
    assert (array.registers.words, array.registers.counted) == (12, True)
    exp, mac = array.ops["exp"], array.ops["mac"]
    assert (exp.cycles, exp.energy_pj) == (6, pytest.approx(6 * 17.16))
    assert (exp.register_reads, exp.register_writes) == (6 * mac.register_reads, 6 * mac.register_writes)


def test_the_example_runs_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(EXAMPLE)
    mine, ours = (evaluate("fusemax", "bert", "4K", arch=a) for a in (str(tmp_path / "mine.yaml"), None))
    assert mine.cycles == ours.cycles
    assert mine.traffic_bytes == ours.traffic_bytes


def test_short_forms_of_operations() -> None:
    long = machine()
    short = machine(("exp: {as: 6 mac}", "exp: 6 mac"))
    assert short.units["array_2d"].ops == long.units["array_2d"].ops
    assert machine(("exp: {as: 6 mac}", "exp: {as: mac}")).units["array_2d"].ops["exp"].cycles == 1
    assert machine(("exp: {as: 6 mac}", "exp: {as: 1.5 mac}")).units["array_2d"].ops["exp"].cycles == 1.5
    chain = machine(("exp: {as: 6 mac}", "exp2: 2 exp\n      exp: {as: 6 mac}")).units["array_2d"].ops
    assert (chain["exp2"].cycles, chain["exp2"].energy_pj) == (12, 2 * chain["exp"].energy_pj)
    free = machine(("{energy: 8.3395 pJ}", "")).units["array_2d"].ops["add"]
    assert (free.cycles, free.energy_pj) == (1, 0)


def test_stand_ins() -> None:
    unit = machine().units["array_2d"]
    found = {
        op: None if (f := find_op(unit, op)) is None else f.name
        for op in ("mul", "sub", "relu", "exp2", "recip", "log")
    }
    assert found == {"mul": "mac", "sub": "add", "relu": "max", "exp2": "exp", "recip": None, "log": None}
    assert all(name not in stand_ins for name, stand_ins in STAND_INS.items())


@pytest.mark.parametrize("name", names("archs"))
def test_library_architectures(name: str) -> None:
    arch = parse_architecture(text_of(name), name)
    assert arch.name == name
    assert arch.source
    assert all(value >= 0 for value in arch.area_um2().values())


def test_area_is_that_of_all_elements() -> None:
    areas = machine().area_um2()
    assert areas["global_buffer"] == pytest.approx(94.1762559664e6)
    assert areas["array_2d"] == pytest.approx(2**16 * (4255.9342 + 1545 + 49.28944))


def test_what_a_change_of_the_machine_does(tmp_path: Path) -> None:
    def on(*changes: tuple[str, str]) -> Evaluation:
        (tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml").write_text(changed("fusemax-cloud", *changes))
        return evaluate("fusemax", "bert", "4K", arch=str(max(tmp_path.iterdir())))

    base, fast, narrow, cheap = (
        on(), on(("940 MHz", "1.88 GHz")), on(("400 GiB/s", "4 GiB/s")),
        on(("um^2, counted: false", "um^2, counted: true"))
    )  # fmt: skip
    assert fast.cycles == base.cycles
    assert fast.latency_s == pytest.approx(base.latency_s / 2)
    assert (narrow.bound, narrow.dram_bytes) == ("dram", base.dram_bytes)
    assert narrow.latency_s == pytest.approx(base.dram_bytes / (4 * 2**30))
    assert cheap.energy_j > base.energy_j


def test_a_message_names_the_text_it_was_given() -> None:
    with pytest.raises(InputError, match=r"^mine:4:8: clock: 940 has no unit"):
        parse_architecture(changed("fusemax-cloud", ("clock: 940 MHz", "clock: 940")), "mine")
