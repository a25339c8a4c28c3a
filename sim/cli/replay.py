"""`python -m sim replay`: the run of a folder, or of a plan that fuzz wrote, once more."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from p2p.errors import InvalidInput
from sim.cli.run import result_in_folder, run_scenario
from sim.engine.jobs import failures
from sim.report import versions
from sim.scenario.model import Scenario

MAX_FILE = 16 << 20  # bytes


def replay(arguments: argparse.Namespace) -> int:
    """Runs again. Of a folder: 0 when the trace is the same; of a plan: 0 when it holds now."""
    path: Path = arguments.path
    if path.is_dir():
        return _replay_folder(path, as_json=arguments.json)
    scenario, seed = read_plan(path)
    return run_scenario(scenario, seed, ["replay", str(path)], None, as_json=arguments.json)


def read_plan(path: Path) -> tuple[Scenario, int]:
    """The scenario and seed in a JSON file. Raises `InvalidInput`."""
    fields = _read(path)
    try:
        return Scenario.model_validate(fields["scenario"]), int(fields["seed"])
    except KeyError as exc:
        reason = f"it has no {exc}"
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        reason = f"{'.'.join(map(str, ('scenario', *error['loc'])))}: {error['msg']}"
    except (TypeError, ValueError) as exc:
        reason = str(exc)
    raise InvalidInput(f"{path} describes no run of this version: {reason}")


def _replay_folder(folder: Path, *, as_json: bool) -> int:
    scenario, seed = read_plan(folder / "run.json")
    before = _read(folder / "result.json").get("trace_hash")
    result = result_in_folder(scenario, seed, [], None, as_json=as_json)
    same = result["trace_hash"] == before
    if as_json:
        print(json.dumps(result | {"trace_hash_before": before, "same": same}))
    elif "error" not in result:
        print(f"trace {result['trace_hash']}: {'the same as before' if same else f'it was {before}'}")
        for failure in failures(result):
            print(f"sim: did not hold: {failure}", file=sys.stderr)
    if not same:
        changes = _changes(_read(folder / "run.json").get("versions"))
        print(f"sim: another trace than before{changes and f', with {changes}'}", file=sys.stderr)
    return 0 if same else 1


def _changes(before: object) -> str:
    """What has another version than when the folder was written, in words."""
    if not isinstance(before, dict):
        return ""
    now = versions()
    changed = [f"{name} {now[name]} instead of {before.get(name)}" for name in now]
    return ", ".join(words for name, words in zip(now, changed, strict=True) if before.get(name) != now[name])


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        content = json.loads(data) if len(data) <= MAX_FILE else None
    except OSError as exc:
        raise InvalidInput(f"cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise InvalidInput(f"{path} is no JSON file") from exc
    if len(data) > MAX_FILE:
        raise InvalidInput(f"{path} is over {MAX_FILE} bytes")
    if not isinstance(content, dict):
        raise InvalidInput(f"{path} describes no run")
    return content
