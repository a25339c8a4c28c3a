"""What an installation gets: every module, every data file, entry points that resolve."""

from __future__ import annotations

import configparser
import importlib.util
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path

import pytest

from tests.architecture import ROOMS, ROOT

CONFIG = configparser.ConfigParser(interpolation=None)
CONFIG.read(ROOT / "setup.cfg", encoding="utf-8")


def declared() -> list[EntryPoint]:
    """The entry points in setup.cfg."""
    return [
        EntryPoint(name=name.strip(), value=value.strip(), group=group)
        for group, lines in CONFIG["options.entry_points"].items()
        for name, _, value in (line.partition("=") for line in lines.strip().splitlines())
    ]


@pytest.mark.parametrize("point", declared(), ids=lambda point: f"{point.group}:{point.name}")
def test_an_entry_point_leads_somewhere_and_is_installed(point: EntryPoint) -> None:
    assert point in entry_points(group=point.group, name=point.name)
    if point.module == "plugins.training.torch_mlp" and importlib.util.find_spec("torch") is None:
        assert importlib.util.find_spec(point.module) is not None  # it cannot be imported without torch
    else:
        assert callable(point.load())


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert not [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()]


def test_every_room_is_installed_and_says_that_it_is_typed() -> None:
    included = [pattern.rstrip("*") for pattern in CONFIG["options.packages.find"]["include"].split()]
    assert sorted(included) == sorted(ROOMS)
    assert not [room for room in ROOMS if not (ROOT / room / "py.typed").is_file()]


def test_every_generated_module_lies_beside_its_source() -> None:
    generated = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*_pb2.py"))
    assert generated
    for path in generated:
        assert path.with_name(path.name.replace("_pb2.py", ".proto")).is_file()
        assert path.with_suffix(".pyi").is_file()


def test_the_version_is_the_same_wherever_it_is_told() -> None:
    from p2p.config import HostConfig

    assert version("atcp") == CONFIG["metadata"]["version"]
    assert HostConfig().agent == f"atcp/{version('atcp')}"


def test_the_license_is_the_one_that_the_metadata_names() -> None:
    assert CONFIG["metadata"]["license"] == "Apache-2.0"
    text = Path(ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
