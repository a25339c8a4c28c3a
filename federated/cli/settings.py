"""What several commands ask about a task: its plugins, their settings, and the policy of its rounds."""

from __future__ import annotations

import argparse
import json
from typing import Any

from pydantic import JsonValue, ValidationError

from federated.errors import PluginError
from federated.manifest import MAX_DEADLINE, PluginRef, TaskManifest, first_problem
from p2p.arguments import number
from p2p.errors import InvalidInput

KINDS = ("preprocessor", "trainer", "aggregator", "validator")
COMPRESSOR = "compressor"  # the kind that a task may do without
POLICY = "policy"
PRIVACY = "privacy"
SUMS = "sums"
DEFAULTS = {"preprocessor": "digits", "trainer": "numpy-mlp"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options; `manifest_of` reads them."""
    add = parser.add_argument
    add("--preprocessor", metavar="NAME", help="loads a peer's data (digits)")
    add("--trainer", metavar="NAME", help="knows the model (numpy-mlp)")
    add("--aggregator", default="weighted-mean", metavar="NAME", help="makes one of many (weighted-mean)")
    add("--validator", default="update-check", metavar="NAME", help="refuses updates (update-check)")
    add("--compressor", metavar="NAME", help="makes updates smaller (none)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KIND.NAME=VALUE",
        help="a plugin's setting, or one of policy, privacy or sums (repeatable)",
    )
    deadline = number(float, 0.001, MAX_DEADLINE)
    add("--train-deadline", type=deadline, metavar="S", help="seconds to train (60)")
    add("--phase-deadline", type=deadline, metavar="S", help="seconds of other phases (10)")


def add_tell(parser: argparse.ArgumentParser) -> None:
    """Adds `--tell`, see `federated.listeners.load_listeners`."""
    parser.add_argument(
        "--tell",
        action="append",
        default=[],
        metavar="NAME=PLACE",
        help="tell a listener what the peers report, like tensorboard=runs (repeatable)",
    )


def manifest_of(arguments: argparse.Namespace, task: str | None, **values: Any) -> TaskManifest:
    """The manifest that the options describe, with `values` for its other fields.

    `task` is a plugin that is preprocessor and trainer at once, unless others are named. Raises
    `InvalidInput` with the first thing that is wrong, also for plugins that are not installed here.
    """
    settings = _settings(arguments.set)
    names = {kind: getattr(arguments, kind) or task or DEFAULTS[kind] for kind in KINDS}
    if arguments.compressor:
        names[COMPRESSOR] = arguments.compressor
    elif settings[COMPRESSOR]:
        raise InvalidInput("--set compressor goes with --compressor")
    deadlines = given(train_deadline_s=arguments.train_deadline, phase_deadline_s=arguments.phase_deadline)
    plugins = {kind: {"name": name, "settings": settings[kind]} for kind, name in names.items()}
    private = given(privacy=settings[PRIVACY] or None, sums=settings[SUMS] or None)
    try:
        manifest = TaskManifest.model_validate(
            {**plugins, **private, POLICY: {**settings[POLICY], **deadlines}, **values}
        )
    except ValidationError as exc:
        raise InvalidInput(first_problem(exc)) from exc
    _check_plugins(manifest)
    return manifest


def given(**values: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def _settings(texts: list[str]) -> dict[str, dict[str, JsonValue]]:
    """The settings of each plugin, policy, privacy and sums; a value is JSON, or text where it is none."""
    kinds = (*KINDS, COMPRESSOR, POLICY, PRIVACY, SUMS)
    found: dict[str, dict[str, JsonValue]] = {kind: {} for kind in kinds}
    for text in texts:
        where, equals, value = text.partition("=")
        kind, _, name = where.partition(".")
        if not equals or kind not in found or not name:
            raise InvalidInput(f"--set {text}: write it like trainer.epochs=5 (of {', '.join(found)})")
        try:
            found[kind][name] = json.loads(value)
        except ValueError:
            found[kind][name] = value
    return found


def check_task(name: str) -> None:
    """Raises `InvalidInput` unless the plugin `name` has both data and model."""
    from federated.registry import Registry

    try:
        for kind in ("preprocessor", "trainer"):
            Registry().create(kind, PluginRef(name=name))
    except (PluginError, ValidationError) as exc:
        reason = first_problem(exc) if isinstance(exc, ValidationError) else str(exc)
        raise InvalidInput(f"--task {name}: {reason}") from exc


def _check_plugins(manifest: TaskManifest) -> None:
    """Raises `InvalidInput` when a plugin is not installed here, or does not take its settings."""
    from federated.registry import Registry  # it imports the plugins, and what they need

    try:
        Registry().load(manifest)
    except PluginError as exc:
        raise InvalidInput(str(exc)) from exc
