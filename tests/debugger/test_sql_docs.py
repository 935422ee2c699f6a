"""docs/sql.md says what the views are; debugger/sql/views.py is the one place. With RACETAPE_WRITE_DOCS set, it is
written anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs PyArrow: pip install 'racetape[sql]'")

from debugger.sql.views import FUNCTIONS, VIEWS

PAGE = Path(__file__).parents[2] / "docs" / "sql.md"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def functions() -> str:
    rows = [f"| `{name}` | {cell(meaning)} |" for name, meaning in FUNCTIONS.items()]
    return "\n".join(["| function | value |", "| --- | --- |", *rows])


def views() -> str:
    parts = []
    for view in VIEWS:
        rows = [
            f"| {column.name} | {column.sql_type} | {column.unit} | {cell(column.meaning)} |" for column in view.columns
        ]
        table = ["| column | type | unit | meaning |", "| --- | --- | --- | --- |", *rows]
        parts.append("\n".join([f"### {view.name}", "", view.meaning, "", *table]))
    return "\n\n".join(parts)


def filled(text: str) -> str:
    for name, content in (("functions", functions()), ("views", views())):
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert start, name
        assert end, name
        text = f"{before}{start}\n{content}\n\n{end}{after}"
    return text


def test_page_says_what_the_code_does() -> None:
    text = PAGE.read_text()
    if os.environ.get("RACETAPE_WRITE_DOCS"):
        PAGE.write_text(filled(text))
        return
    assert text == filled(text), "run this test with RACETAPE_WRITE_DOCS=1"
