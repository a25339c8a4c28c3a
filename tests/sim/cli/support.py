"""The command line, in this process and in others, with a scenario that takes a moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sim.cli.main import main

SMALL = """\
name = "small"
rung = "cores"
peers = 6
settle = 3

[topology]
degree = 3
over = 0.5

[[gossip]]
rate = 5
start = 6
seconds = 2
"""

ENDLESS = SMALL.replace("seconds = 2", "seconds = 100000")
HOPELESS = SMALL + "\n[checks]\np99_ms = 0.001\n"

Lines = list[dict[str, Any]]


def write(folder: Path, text: str = SMALL, name: str = "small.toml") -> str:
    """The path of a scenario's file with that text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def call(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command in this process."""
    capfd.readouterr()
    status = main(words)
    return status, *capfd.readouterr()


def lines(out: str) -> Lines:
    """The objects of a run with --json; every line must be one."""
    return [json.loads(line) for line in out.splitlines()]


@contextmanager
def spawn(folder: Path, *words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, which does not outlive the body."""
    with subprocess.Popen(
        [sys.executable, "-m", "sim", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
