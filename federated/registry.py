"""Finds plugins by name among the installed packages, and makes them with their settings.

Only what a task names is imported. Every failure is a `PluginError` with one line for a person:
a name nobody installed, a name that is not enabled here, a package that is missing, a wrong setting.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from federated.blame import told
from federated.errors import PluginError
from federated.manifest import PluginRef, TaskManifest
from federated.plugin import Aggregator, Compressor, Preprocessor, Trainer, Validator

GROUP = "federated.plugins"
KINDS: dict[str, type] = {
    "preprocessor": Preprocessor,
    "trainer": Trainer,
    "aggregator": Aggregator,
    "validator": Validator,
    "compressor": Compressor,
}


@dataclass(frozen=True, kw_only=True)
class JudgingPlugins:
    """What all members do alike with updates; without a compressor, updates travel as they are."""

    aggregator: Aggregator
    validator: Validator
    compressor: Compressor | None = None


@dataclass(frozen=True, kw_only=True)
class EdgePlugins:
    """What works with the data of one peer."""

    preprocessor: Preprocessor
    trainer: Trainer
    compressor: Compressor | None = None


@dataclass(frozen=True, kw_only=True)
class TaskPlugins(EdgePlugins, JudgingPlugins):
    """The plugins of one task, made with their settings."""


class Registry:
    """The installed plugins, or with `allowed` only those of them that were enabled by name."""

    def __init__(
        self, allowed: Sequence[str] | None = None, installed: Iterable[EntryPoint] | None = None
    ) -> None:
        """`installed` defaults to every entry point of the group. Raises `PluginError`."""
        found = entry_points(group=GROUP) if installed is None else installed
        self._installed: dict[str, list[EntryPoint]] = {}
        for point in sorted(found, key=lambda point: (point.name, point.value)):
            self._installed.setdefault(point.name, []).append(point)
        self._allowed = None if allowed is None else frozenset(allowed)
        unknown = sorted(set(allowed or ()) - set(self._installed))
        if unknown:
            raise PluginError(
                f"no plugin {unknown[0]!r} is installed; there are: {_listing(self._installed)}"
            )

    def names(self) -> list[str]:
        """The names that a task may use here, sorted."""
        return [name for name in self._installed if self._allowed is None or name in self._allowed]

    def load(self, manifest: TaskManifest) -> TaskPlugins:
        """The plugins of a task. Raises `PluginError` for the first that cannot be had."""
        edge, judging = self.load_edge(manifest), self.load_judging(manifest)
        return TaskPlugins(
            preprocessor=edge.preprocessor,
            trainer=edge.trainer,
            aggregator=judging.aggregator,
            validator=judging.validator,
            compressor=judging.compressor,
        )

    def load_judging(self, manifest: TaskManifest) -> JudgingPlugins:
        """Those of a task that judge updates and make models. Raises `PluginError`."""
        compressor = manifest.compressor
        return JudgingPlugins(
            aggregator=self.create("aggregator", manifest.aggregator),
            validator=self.create("validator", manifest.validator),
            compressor=None if compressor is None else self.create("compressor", compressor),
        )

    def load_edge(self, manifest: TaskManifest) -> EdgePlugins:
        """Those of a task that work with data, in one object where one plugin does. Raises `PluginError`."""
        compressor = manifest.compressor
        trainer = preprocessor = self.create("preprocessor", manifest.preprocessor)
        if manifest.trainer != manifest.preprocessor or not _is_task(preprocessor):
            trainer = self.create("trainer", manifest.trainer)
        return EdgePlugins(
            preprocessor=preprocessor,
            trainer=trainer,
            compressor=None if compressor is None else self.create("compressor", compressor),
        )

    def edge_points(self, manifest: TaskManifest) -> dict[str, str]:
        """Where the plugins of a task are that work with data, by name; nothing is imported.

        Raises `PluginError` for the first that cannot be had.
        """
        refs = {"preprocessor": manifest.preprocessor, "trainer": manifest.trainer}
        if manifest.compressor is not None:
            refs["compressor"] = manifest.compressor
        return {ref.name: self._point(kind, ref.name).value for kind, ref in refs.items()}

    def create(self, kind: str, ref: PluginRef) -> Any:
        """The plugin `ref` names, made with its settings. Raises `PluginError`."""
        name = ref.name
        self._point(kind, name)
        factory = self._import(name)
        found = getattr(factory, "kind", None)
        if not _is_of_kind(found, kind):
            raise PluginError(f"plugin {name!r} is of kind {found}, not {kind}")
        plugin = _make(name, factory, ref.settings)
        if not isinstance(plugin, KINDS[kind]):
            raise PluginError(f"plugin {name!r} lacks a method of its kind, {kind}")
        return plugin

    def _point(self, kind: str, name: str) -> EntryPoint:
        """The entry point of an enabled plugin. Raises `PluginError`."""
        if name not in self._installed:
            raise PluginError(f"no {kind} {name!r} is installed; there are: {_listing(self._of_kind(kind))}")
        if self._allowed is not None and name not in self._allowed:
            raise PluginError(f"plugin {name!r} is not enabled here: add --plugin {name}")
        return self._only(name)

    def _only(self, name: str) -> EntryPoint:
        points = self._installed[name]
        if len({point.value for point in points}) > 1:
            raise PluginError(f"plugin {name!r} is installed twice: {_listing(p.value for p in points)}")
        return points[0]

    def _import(self, name: str) -> Any:
        point = self._only(name)
        try:
            return point.load()
        except ModuleNotFoundError as exc:
            raise _missing(name, exc) from exc
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # a stranger's module may raise anything while it is imported
            raise PluginError(f"plugin {name!r} cannot be imported: {_line(exc)}") from exc

    def kinds(self) -> dict[str, list[str]]:
        """The names that a task may use here, by kind; "broken" has a line for each that does not import."""
        found: dict[str, list[str]] = {}
        for name in self.names():
            try:
                kind = str(getattr(self._import(name), "kind", None))
            except PluginError as exc:
                kind, name = "broken", str(exc)
            found.setdefault(kind, []).append(name)
        return found

    def _of_kind(self, kind: str) -> list[str]:
        """The names of this kind that can be imported; only an error message wants to know."""
        found = []
        for name in self._installed:
            try:
                factory = self._import(name)
            except PluginError:
                continue
            if _is_of_kind(getattr(factory, "kind", None), kind):
                found.append(name)
        return found


def _is_task(plugin: object) -> bool:
    """Whether it has both data and model."""
    return getattr(plugin, "kind", None) == "task" and isinstance(plugin, Trainer)


def _is_of_kind(found: object, kind: str) -> bool:
    """Whether a plugin that says it is `found` can be a `kind`; a task is both of what it needs."""
    return found == kind or (found == "task" and kind in ("preprocessor", "trainer"))


def _make(name: str, factory: Any, settings: dict[str, Any]) -> Any:
    try:
        inspect.signature(factory).bind(**settings)
    except TypeError as exc:
        raise PluginError(f"plugin {name!r}: {exc}; it takes {_settings_of(factory)}") from exc
    try:
        return factory(**settings)
    except ModuleNotFoundError as exc:
        raise _missing(name, exc) from exc
    except (PluginError, ValueError, TypeError) as exc:
        raise PluginError(f"plugin {name!r}: {_line(exc)}") from exc
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # a stranger's
        raise PluginError(f"plugin {name!r} cannot be made: {told(exc)}") from exc


def _missing(name: str, exc: ModuleNotFoundError) -> PluginError:
    return PluginError(f"plugin {name!r} needs the package {exc.name!r}, which is not installed")


def _settings_of(factory: Any) -> str:
    return _listing(inspect.signature(factory).parameters) or "no settings"


def _listing(names: Iterable[str]) -> str:
    return ", ".join(names)


def _line(exc: BaseException) -> str:
    """The error in one line: its first, or its type when it says nothing."""
    return (str(exc).splitlines() or [type(exc).__name__])[0]
