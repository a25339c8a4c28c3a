"""Scenarios by name: those that are shipped, in sim/scenarios/, and files that a person wrote.

load("mixed")                          a shipped one
load("mine.toml")                      a file: whatever ends in .toml or has a directory
with_changes(load("mixed"), peers=300)
"""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from p2p.errors import InvalidInput
from sim.rung import RungName
from sim.scenario import model
from sim.scenario.model import Model, Scenario

MAX_FILE = 1 << 20  # bytes of a scenario; the longest list of faults takes a tenth of it

_SHIPPED = files("sim") / "scenarios"


def names() -> dict[str, str]:
    """The shipped scenarios, by name, with what each shows in one sentence."""
    return {name: load(name).description for name in _shipped()}


def load(name_or_path: str) -> Scenario:
    """A shipped scenario by name, or the one in a TOML file.

    Raises `InvalidInput` with one line: the file, the field, what to write there.
    """
    if name_or_path.endswith(".toml") or Path(name_or_path).name != name_or_path:
        return _read(Path(name_or_path))
    if name_or_path not in _shipped():
        close = get_close_matches(name_or_path, _shipped(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InvalidInput(
            f"no scenario {name_or_path!r}; {hint}there are {', '.join(_shipped())}, and paths of TOML files"
        )
    return parse((_SHIPPED / f"{name_or_path}.toml").read_bytes(), f"scenario {name_or_path}")


def parse(data: bytes, origin: str) -> Scenario:
    """The scenario in TOML text. Raises `InvalidInput` with one line that begins with `origin`."""
    try:
        return Scenario.model_validate(tomllib.loads(data.decode()))
    except ValidationError as exc:
        raise InvalidInput(f"{origin}: {_first_problem(exc)}") from exc
    except RecursionError as exc:
        raise InvalidInput(f"{origin}: not TOML: nested too deeply") from exc
    except ValueError as exc:  # TOMLDecodeError, UnicodeDecodeError
        raise InvalidInput(f"{origin}: not TOML: {exc}") from exc


def with_changes(
    scenario: Scenario,
    *,
    peers: int | None = None,
    rung: RungName | None = None,
    task: str | None = None,
) -> Scenario:
    """The scenario with another number of peers, on another rung, with another task than its own.

    `task` is a plugin that has both data and model; how well it must learn the scenario cannot know.
    What the scenario asks of more nodes than there are then, it asks of all of them: members of a task,
    counts of faults and adversaries, clusters, bootstrap nodes. Raises `InvalidInput` where that makes
    no sense, as for a fault of a certain node that is not there.
    """
    value = scenario.model_dump()
    if rung is not None:
        value["rung"] = rung
    if task is not None:
        _replace_task(value, task)
    if peers is not None:
        value["peers"] = peers
        _fit(value, peers)
    try:
        return Scenario.model_validate(value)
    except ValidationError as exc:
        origin = f"scenario {scenario.name}" + (f" with {peers} peers" if peers is not None else "")
        raise InvalidInput(f"{origin}: {_first_problem(exc)}") from exc


def _replace_task(value: dict[str, Any], task: str) -> None:
    """Raises `InvalidInput` unless the scenario has one task."""
    if len(value["task"]) != 1:
        raise InvalidInput(
            f"scenario {value['name']} has {len(value['task'])} tasks; --task takes the place of one"
        )
    [load] = value["task"]
    load |= {"name": task, "preprocessor": task, "trainer": task}
    load["settings"] = {
        role: settings
        for role, settings in load["settings"].items()
        if role not in ("preprocessor", "trainer")
    }
    value["checks"]["accuracy"] = None


@cache
def _shipped() -> tuple[str, ...]:
    found = (entry.name for entry in _SHIPPED.iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in found))


def _read(path: Path) -> Scenario:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as exc:
        raise InvalidInput(f"cannot read scenario {path}: {exc.strerror or exc}") from exc
    if len(data) > MAX_FILE:
        raise InvalidInput(f"scenario {path}: more than {MAX_FILE} bytes")
    return parse(data, f"scenario {path}")


def _fit(value: dict[str, Any], peers: int) -> None:
    """Nothing in the scenario's values counts more nodes than there are."""
    topology = value["topology"]
    topology["bootstrap"] = min(topology["bootstrap"], max(peers, 1))
    topology["clusters"] = min(topology["clusters"], max(peers, 2))
    for task in value["task"]:
        task["members"] = min(task["members"], peers)
    for part in (*value["faults"], *value["adversaries"]):
        for who in (part["who"], part.get("dials")):
            if isinstance(who, dict):
                who["count"] = min(who["count"], peers)


def _first_problem(exc: ValidationError) -> str:
    """The first problem that pydantic found, in one line: field, what is wrong, how many more."""
    errors = exc.errors(include_url=False)
    steps = list(errors[0]["loc"])
    if steps[:1] == ["faults"] and len(steps) > 2:
        del steps[2]  # the kind of the fault, which is no name of a field
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    text = errors[0]["msg"].removeprefix("Value error, ")
    match errors[0]["type"]:
        case "extra_forbidden":
            close = get_close_matches(str(steps[-1]), _settings(), n=1)
            text = "there is no such setting" + (f"; did you mean {close[0]!r}?" if close else "")
        case "union_tag_not_found":
            text = 'the kind is missing; write kind = "crash", for example'
        case "missing":
            text = "is missing; write it"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{path}: {text}{more}" if path else text + more


@cache
def _settings() -> tuple[str, ...]:
    """Every name that a scenario may use somewhere."""
    parts = [part for part in vars(model).values() if isinstance(part, type) and issubclass(part, BaseModel)]
    found = {name: None for part in parts if issubclass(part, Model) for name in part.model_fields}
    return tuple(found)
