"""Tables whose texts stand for themselves."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text


class PlainTable(Table):
    """A table whose texts stand for themselves: names come from files, and a ``[`` in one is no markup."""

    def __init__(self, *headers: str, title: str = "", **options: Any) -> None:
        super().__init__(
            title=Text(title, style="bold") if title else None, title_justify="left", header_style="bold cyan",
            box=None, **options,
        )  # fmt: skip
        for header in headers:
            self.add_column(header)

    def add_column(self, header: Any = "", *args: Any, **options: Any) -> None:
        super().add_column(Text(str(header)), *args, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*[Text(str(cell)) for cell in cells], **options)
