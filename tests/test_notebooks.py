"""Notebooks run from top to bottom, and say what they said when they were written."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def said(notebook: nbformat.NotebookNode) -> list[str]:
    """The text each cell printed."""
    outputs = (c.get("outputs", []) for c in notebook.cells)
    return ["".join(o.get("text", "") for o in cell if o.get("name") == "stdout") for cell in outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path: Path) -> None:
    kept = nbformat.read(path, as_version=4)
    fresh = nbformat.read(path, as_version=4)
    NotebookClient(fresh, timeout=120, kernel_name="python3").execute()
    for before, after in zip(said(kept), said(fresh), strict=True):
        # the last digits of a float32 result depend on the machine's matrix product
        assert before.split("largest difference")[0] == after.split("largest difference")[0]
