"""Imports point only downwards (ARCHITECTURE.md): the layering is a test, not a hope."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# From the bottom up: a package may import itself and those before it.
LAYERS = ["machine", "traces", "recorder", "replayer", "debugger", "racetape"]


def imported_packages(path: Path) -> set[str]:
    """Top-level names that a Python file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_imports_only_downwards(layer: str) -> None:
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    for path in files:
        upward = imported_packages(path) & above
        assert not upward, f"{path.relative_to(ROOT)} imports {upward}, which stand above {layer}"


def test_traces_takes_only_numbers_names_and_errors_from_machine() -> None:
    allowed = {"machine._core", "machine.disassembly", "machine.errors", "machine.symbols"}
    for path in sorted((ROOT / "traces").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "machine":
                names = {
                    f"{node.module}.{alias.name}" if node.module == "machine" else node.module for alias in node.names
                }
                assert names <= allowed, f"{path.relative_to(ROOT)} imports {names}"


def test_private_core_is_imported_only_inside_the_engine() -> None:
    """Users and the face use `machine`, never `machine._core`."""
    for path in sorted((ROOT / "racetape").rglob("*.py")):
        assert "machine._core" not in path.read_text(), path
