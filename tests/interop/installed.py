"""The other implementations: installs them once, and tells which versions are there.

js-libp2p goes to `node_modules`, py-libp2p to `.venv`, both beside this file. Each notes what it was
installed from; when `package.json` or `py-requirements.txt` changes, it is installed anew.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
NODE_VERSION = 22  # js-libp2p 3 needs Promise.withResolvers
INSTALL_TIMEOUT = 600  # seconds

PACKAGES = HERE / "package.json"
MODULES = HERE / "node_modules"
REQUIREMENTS = HERE / "py-requirements.txt"
ENVIRONMENT = HERE / ".venv"

JS_SHOWN = ("libp2p", "@libp2p/tcp", "@libp2p/websockets", "@libp2p/noise", "@libp2p/tls", "@libp2p/yamux")
PY_SHOWN = ("libp2p", "noiseprotocol", "cryptography", "trio-websocket")


class NotInstallable(Exception):
    """The tool that installs this implementation is not on this machine."""


@dataclass(frozen=True)
class Implementation:
    """Another libp2p, ready to run."""

    name: str
    """A key of `INSTALL`."""
    command: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    """(package, version) as installed, the library first."""


def install_js() -> Implementation:
    """js-libp2p from npm. Raises `NotInstallable` without npm or a fitting Node."""
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstallable("npm is not installed: js-libp2p cannot be run")
    if _outdated(MODULES, PACKAGES):
        command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel", "error"]
        subprocess.run(command, cwd=HERE, check=True, timeout=INSTALL_TIMEOUT)
        _note(MODULES, PACKAGES)
    for node in (str(MODULES / "node" / "bin" / "node"), shutil.which("node") or ""):
        if node and _major(node) >= NODE_VERSION:
            return Implementation("js-libp2p", (node, str(HERE / "node.mjs")), _js_versions())
    raise NotInstallable(f"no Node of version {NODE_VERSION} or later: js-libp2p cannot be run")


def install_py() -> Implementation:
    """py-libp2p from PyPI, apart from our own packages. Raises `NotInstallable` without venv or pip."""
    python = str(ENVIRONMENT / "bin" / "python")
    if _outdated(ENVIRONMENT, REQUIREMENTS):
        made = subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], capture_output=True, text=True
        )
        if made.returncode != 0:
            raise NotInstallable(f"no environment for py-libp2p can be made: {made.stdout}{made.stderr}")
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]
        subprocess.run([*command, str(REQUIREMENTS)], check=True, timeout=INSTALL_TIMEOUT)
        _note(ENVIRONMENT, REQUIREMENTS)
    return Implementation("py-libp2p", (python, str(HERE / "py_node.py")), _py_versions(python))


def _marker(folder: Path) -> Path:
    return folder / ".installed"


def _outdated(folder: Path, source: Path) -> bool:
    return not _marker(folder).exists() or _marker(folder).read_text() != source.read_text()


def _note(folder: Path, source: Path) -> None:
    _marker(folder).write_text(source.read_text())


def _major(node: str) -> int:
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    return int(answer.strip().lstrip("v").partition(".")[0])


def _js_versions() -> tuple[tuple[str, str], ...]:
    manifests = {name: json.loads((MODULES / name / "package.json").read_text()) for name in JS_SHOWN}
    return tuple((name, manifest["version"]) for name, manifest in manifests.items())


def _py_versions(python: str) -> tuple[tuple[str, str], ...]:
    program = "import importlib.metadata as m, sys; print(*map(m.version, sys.argv[1:]))"
    answer = subprocess.run([python, "-c", program, *PY_SHOWN], capture_output=True, text=True, check=True)
    return tuple(zip(PY_SHOWN, answer.stdout.split(), strict=True))


INSTALL: dict[str, Callable[[], Implementation]] = {"js-libp2p": install_js, "py-libp2p": install_py}
