"""The pages of the documentation, run: every cascade in them, and every assertion about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from commandline import fusemodel

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


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """The commands of a page, each with the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in text.splitlines() if kind == "console" else ():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line.rstrip())
    return found


@pytest.mark.parametrize("page", ["docs/tutorial.md", "README.md"])
def test_the_commands_of_the_page_print_what_it_says(tmp_path, monkeypatch, page):
    monkeypatch.chdir(tmp_path)
    for command, expected in commands(DOCS.parent / page):
        if not command.startswith("fusemodel "):
            continue
        ran = fusemodel(*command.split()[1:])
        assert ran.code == 0, ran.err
        printed = [line.rstrip() for line in ran.out.splitlines()]
        for line in expected:
            if line == "...":
                continue
            assert line in printed, f"{command}: {line!r}"
            printed = printed[printed.index(line) + 1 :]  # in this order
    assert (tmp_path / "report.html").exists()
