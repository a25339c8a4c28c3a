"""Finds Node and installs the packages of the js-libp2p node, once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
NODE_VERSION = 22  # js-libp2p 3 needs Promise.withResolvers


def _install() -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: js-libp2p cannot be run")
    marker = MODULES / ".installed"
    wanted = (HERE / "package.json").read_text()
    if marker.exists() and marker.read_text() == wanted:
        return
    command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel", "error"]
    subprocess.run(command, cwd=HERE, check=True, timeout=600)
    marker.write_text(wanted)


def _major(node: str) -> int:
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    return int(answer.strip().lstrip("v").partition(".")[0])


@pytest.fixture(scope="session")
def js_node() -> list[str]:
    """The command that runs the js-libp2p node."""
    _install()
    candidates = [str(MODULES / "node" / "bin" / "node"), shutil.which("node") or ""]
    for node in candidates:
        if node and _major(node) >= NODE_VERSION:
            return [node, str(HERE / "node.mjs")]
    pytest.skip(f"no Node of version {NODE_VERSION} or later: js-libp2p cannot be run")
