"""The pages of the documentation, run: every cascade in them, and every assertion about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fusemodel import parse_cascade

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def sections(page: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """The headings of a page, each with its fenced blocks (language, text)."""
    parts = re.split(r"(?m)^## (.*)$", page.read_text(encoding="utf-8"))
    titles = ["(start)", *parts[1::2]]
    return [(t, BLOCK.findall(body)) for t, body in zip(titles, parts[0::2], strict=True)]


def test_every_construct_of_the_language_does_what_the_page_says():
    namespace: dict[str, Any] = {}
    checked = 0
    for title, blocks in sections(DOCS / "language.md"):
        for kind, text in blocks:
            if kind == "yaml":
                namespace["cascade"] = parse_cascade(f"name: example\n{text}", f"language.md, {title}")
            else:
                exec(compile(text, f"language.md, {title}", "exec"), namespace)
                checked += text.count("assert")
    assert checked >= 15


@pytest.mark.parametrize("name", ["T[", "where", "coalesce", "split", "topk", "argmax", "i+1", "batch"])
def test_the_page_shows(name):
    assert name in (DOCS / "language.md").read_text(encoding="utf-8")
