"""Every example of docs/machine-api.md is run, and prints what the page says."""

import doctest
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "machine-api.md"


def examples() -> list[doctest.Example]:
    """The examples of all python blocks of the page, with the page's line numbers."""
    text = PAGE.read_text()
    found = []
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text[: block.start(1)].count("\n")
        for example in doctest.DocTestParser().get_examples(block[1]):
            example.lineno += line
            found.append(example)
    return found


def run(found: list[doctest.Example]) -> str:
    """What differs, in doctest's words."""
    report: list[str] = []
    test = doctest.DocTest(found, {}, PAGE.name, str(PAGE), 0, None)
    doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    return "".join(report)


def test_the_page_prints_what_it_says() -> None:
    found = examples()
    assert len(found) > 80
    assert run(found) == ""


def test_a_wrong_page_would_be_noticed() -> None:
    found = examples()
    last = max(i for i, example in enumerate(found) if example.want)
    found[last].want = "43\n"
    assert "43" in run(found)


def test_no_python_block_is_without_a_prompt() -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        assert block.startswith(">>> ")
