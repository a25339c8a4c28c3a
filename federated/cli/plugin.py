"""`atcp plugin new` and `list`: a package for a task of one's own, and what is installed."""

from __future__ import annotations

import argparse
import importlib.util
import json
import keyword
import re
from pathlib import Path
from typing import Any

from federated.cli.templates import MODULE, PYPROJECT, SETUP, TEST
from federated.registry import KINDS, Registry
from p2p.arguments import Parser
from p2p.errors import InvalidInput

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MAX_NAME = 64  # characters, as in a manifest
EXAMPLES = """\
examples:
  atcp plugin new wine           atcp-wine/ with setup.cfg, wine.py and test_wine.py
  pip install -e atcp-wine       once; wine.py may change after that
  atcp run wine                  trains it here; python -m pytest atcp-wine tests it
"""


def add_parser(commands: Any) -> None:
    """Adds the commands and their options to the subparsers `commands`."""
    parser: Parser = commands.add_parser(
        "plugin", help="write plugins, and see which there are", epilog=EXAMPLES
    )
    plugins = parser.add_subparsers(dest="plugin_command", required=True, metavar="COMMAND")
    new = plugins.add_parser("new", help="make the package of a task", epilog=EXAMPLES)
    new.add_argument("name", metavar="NAME", help="of the plugin: small letters, digits and hyphens")
    new.add_argument("--into", type=Path, default=Path(), metavar="DIR", help="where to make its folder (.)")
    new.add_argument("--json", action="store_true", help="the result as a JSON object")
    new.set_defaults(run=new_plugin)
    listing = plugins.add_parser("list", help="the plugins that are installed here")
    listing.add_argument("--json", action="store_true", help="as a JSON object")
    listing.set_defaults(run=list_plugins)


def new_plugin(arguments: argparse.Namespace) -> int:
    """`atcp plugin new`: writes a package that trains as it is, for its author to change."""
    name = arguments.name
    folder = (
        arguments.into / f"atcp-{name}"
    )  # no Python name, so it hides no module from who stands beside it
    module = name.replace("-", "_")
    _check_name(name, module)
    values = {"name": name, "module": module, "class_name": "".join(part.title() for part in name.split("-"))}
    files = {
        "setup.cfg": SETUP,
        "pyproject.toml": PYPROJECT,
        f"{module}.py": MODULE,
        f"test_{module}.py": TEST,
    }
    try:
        folder.mkdir(parents=True)
        for file, template in files.items():
            (folder / file).write_text(template.substitute(values), "utf-8")
    except FileExistsError as exc:
        raise InvalidInput(f"{folder} exists; choose another name, or another folder with --into") from exc
    except OSError as exc:
        raise InvalidInput(f"cannot write {folder}: {exc.strerror or exc}") from exc
    if arguments.json:
        print(json.dumps({"event": "plugin", "name": name, "folder": str(folder), "files": list(files)}))
    else:
        print(f"{folder}: {', '.join(files)}")
        print(f"pip install -e {folder} && atcp run {name}")
    return 0


def list_plugins(arguments: argparse.Namespace) -> int:
    """`atcp plugin list`: by kind, with those that cannot be imported and why not."""
    found = Registry().kinds()
    if arguments.json:
        print(json.dumps({"event": "plugins", **found}))
        return 0
    for kind in (*KINDS, "task", "broken"):
        for line in found.get(kind, []):
            print(f"{kind:13} {line}")
    return 0


def _check_name(name: str, module: str) -> None:
    """Raises `InvalidInput` for what cannot be the name of a plugin and, with underscores, of a module."""
    if not NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise InvalidInput(f"{name!r} cannot be a plugin's name: write it like wine or wine-quality")
    if keyword.iskeyword(module) or importlib.util.find_spec(module) is not None:
        raise InvalidInput(f"there is a Python module {module} already: choose another name")
    if name in Registry().names():
        raise InvalidInput(f"a plugin {name} is installed already: choose another name")
