"""The direction of the imports and the machines' independence, and that both checks catch a violation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture import (
    IO_FILES,
    ROOMS,
    ROOT,
    io_files,
    io_modules,
    machine_violations,
    outside_imports,
    wire_violations,
)


@pytest.fixture
def copied_tree(tmp_path: Path) -> Path:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    return tmp_path


def plant(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")


def of_table(violations: list[str]) -> list[str]:
    """Those in the module that the tests plant into; the tree itself has a test of its own."""
    return [violation for violation in violations if violation.startswith("p2p/kad/table.py:")]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run(
        [sys.executable, "-c", command], cwd=folder, capture_output=True, text=True, timeout=150, check=False
    )


def test_machines_are_handed_clock_randomness_and_bytes() -> None:
    assert machine_violations(ROOT) == []


@pytest.mark.parametrize(
    "line",
    [
        "import trio",
        "import os.path",
        "from time import monotonic",
        "if True:\n    import socket",
        "try:\n    from secrets import token_bytes\nexcept ImportError:\n    pass",
        "class Box:\n    import random",
        "from p2p.scope import open_scope",
        "from p2p import scope",
        "from p2p.transport import MemoryTransport",
    ],
)
def test_a_machine_that_reaches_outside_is_found(copied_tree: Path, line: str) -> None:
    plant(copied_tree / "p2p" / "kad" / "table.py", line)
    [found] = of_table(machine_violations(copied_tree))
    assert "imports" in found


@pytest.mark.parametrize(
    "line",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from random import Random",
        "def late() -> None:\n    import time",
    ],
)
def test_an_import_that_does_not_happen_at_load_is_allowed(copied_tree: Path, line: str) -> None:
    plant(copied_tree / "p2p" / "kad" / "table.py", line)
    assert of_table(machine_violations(copied_tree)) == []


def test_each_file_named_as_doing_io_does_io() -> None:
    doing_io = io_modules(ROOT)
    for pattern in IO_FILES:
        reached = [outside_imports(path, ROOT, doing_io) for path in io_files(ROOT, [pattern])]
        assert any(reached), f"nothing in {pattern} does I/O any more: take it off the list"


def test_only_wire_modules_touch_generated_protobuf() -> None:
    assert wire_violations(ROOT) == []


def test_generated_protobuf_outside_wire_is_found(copied_tree: Path) -> None:
    plant(copied_tree / "p2p" / "kad" / "table.py", "from p2p.kad import dht_pb2")
    [found] = of_table(wire_violations(copied_tree))
    assert found.endswith("imports p2p.kad.dht_pb2")


def test_imports_point_down_and_nobody_imports_the_program(copied_tree: Path) -> None:
    result = lint_imports(copied_tree)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("p2p/errors.py", "import federated.errors", "Imports point down"),
        ("federated/errors.py", "import plugins", "Imports point down"),
        ("plugins/__init__.py", "import sim", "Imports point down"),
        ("sim/__init__.py", "import plugins", "Imports point down"),
        ("p2p/__init__.py", "import p2p.peer", "p2p.peer is a program"),
        ("federated/errors.py", "def late() -> None:\n    import p2p.peer", "p2p.peer is a program"),
    ],
)
def test_an_import_against_the_direction_is_found(
    copied_tree: Path, module: str, line: str, broken: str
) -> None:
    plant(copied_tree / module, line)
    result = lint_imports(copied_tree)
    assert result.returncode == 1, result.stdout + result.stderr
    assert [line for line in result.stdout.splitlines() if line.startswith(broken) and "BROKEN" in line]
