"""The page on simulation says what the table beside it has, and the table what the simulator says."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from fusemodel.cascade.load import parse_size
from fusemodel.cascade.workload import load_workload
from fusemodel.errors import Where
from fusemodel.library import names
from fusemodel.mapping import load_design
from fusemodel.report.simulation import main_stall, ratio
from fusemodel.simulate import simulate

DOCS = Path(__file__).parents[1] / "docs"
Row = dict[str, str]


@cache
def table() -> tuple[Row, ...]:
    head, _, *lines = [[c.strip() for c in x.strip("|\n").split("|")] for x in (DOCS / "simulation-table.md").open()]
    return tuple(dict(zip(head, line, strict=True)) for line in lines)


def part(row: Row, column: str) -> float:
    return float(row[column].rstrip("%")) / 100


def tokens(row: Row) -> int:
    return parse_size(row["tokens"], "tokens", Where())


def reasons() -> list[list[str]]:
    """The mappings named in each row of the page's table of reasons, and the whole row."""
    page = (DOCS / "simulation.md").read_text().split("What makes up the others:")[1].split("**By hand.**")[0]
    lines = [x for x in page.splitlines() if x.startswith("| `")]
    return [[line, *re.findall(r"`([a-z0-9-]+)`", line.split("|")[1])] for line in lines]


def test_the_page_counts_what_the_table_has() -> None:
    page = (DOCS / "simulation.md").read_text()
    rows = [r for r in table() if tokens(r) >= 2**14]
    found = re.search(r"tokens: (\d+) rows", page)
    assert found
    assert int(found[1]) == len(table())
    found = re.search(
        r"Double-buffered, (\d+) of the (\d+) rows at 16K and more are within 1 %; as written, (\d+)", page
    )
    assert found
    within = [sum(part(r, c) <= 0.01 for r in rows) for c in ("double-buffered", "simulated")]
    assert [int(x) for x in found.groups()] == [within[0], len(rows), within[1]]


def test_no_row_is_faster_than_the_closed_form() -> None:
    assert all(part(r, c) >= 0 for r in table() for c in ("simulated", "double-buffered"))


def test_every_difference_has_a_reason() -> None:
    """A row of the page names each mapping that loses more than 1 % at 16K and more, and its stall."""
    for row in table():
        if tokens(row) >= 2**14 and max(part(row, "double-buffered"), part(row, "simulated")) > 0.01:
            line = next((line for line, *some in reasons() if row["mapping"] in some), "")
            assert line, row
            stall = row["waits most for"].split(" ")[0]
            assert stall == "-" or f"`{stall}`" in line, row


@pytest.mark.parametrize("mapping", sorted({r["mapping"] for r in table()}))
def test_the_table_is_that_of_the_simulator(mapping: str) -> None:
    """One row of each mapping, of those at 16K that have most to say in least time."""
    row = next(r for r in table() if r["mapping"] == mapping and r["tokens"] == "16K" and r["workload"] == "layer32")
    design, workload = load_design(mapping), load_workload("layer32")
    found, twice = (simulate(design, workload, 2**14, copies=copies, window=0) for copies in (1, 2))
    assert row["closed form, cycles"] == f"{found.closed_form_cycles:.4g}"
    assert (row["simulated"], row["double-buffered"]) == (f"{ratio(found):+.2%}", f"{ratio(twice):+.2%}")
    if ratio(found) > 0.01:
        unit, stall, share = main_stall(found)
        assert row["waits most for"] == f"{stall} ({unit}, {share:.1%})"


def test_every_mapping_without_a_grid_is_in_the_table() -> None:
    without = {n for n in names("mappings") if not any(g.grid for c in load_design(n).groups for g in c.groups)}
    assert {r["mapping"] for r in table()} == without
