"""Bugs planted in the running program: in the source of a module some words become others.

The functions of the module keep their identity and get the code of the changed source, so that the change
holds wherever they were imported to, and ends with the block.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """In `module`, `good` becomes `bad`; it is there once."""

    module: str
    good: str
    bad: str


@contextmanager
def planted(edits: Sequence[Edit]) -> Iterator[None]:
    """The program with these changes."""
    before: list[tuple[FunctionType, CodeType]] = []
    modules: dict[str, list[Edit]] = {}
    for edit in edits:
        modules.setdefault(edit.module, []).append(edit)
    try:
        for name, changes in modules.items():
            module = importlib.import_module(name)
            text = inspect.getsource(module)
            for edit in changes:
                assert text.count(edit.good) == 1, (
                    f"{name} has changed: plant the bug where it is now: {edit}"
                )
                text = text.replace(edit.good, edit.bad)
            changed = _functions(_compiled(module, text))
            for path, function in _functions(module).items():
                before.append((function, function.__code__))
                function.__code__ = changed[path].__code__
        yield
    finally:
        for function, code in before:
            function.__code__ = code


def _compiled(module: ModuleType, text: str) -> ModuleType:
    """A module of this text that nobody imports."""
    import sys

    made = ModuleType(module.__name__)
    made.__file__ = module.__file__
    known = sys.modules[module.__name__]
    try:
        sys.modules[module.__name__] = made  # dataclasses look their module up
        exec(compile(text, str(module.__file__), "exec"), made.__dict__)
    finally:
        sys.modules[module.__name__] = known
    return made


def _functions(module: ModuleType) -> dict[str, FunctionType]:
    """The functions and methods that are written in a module, by their path."""
    found: dict[str, FunctionType] = {}

    def look(holder: Any, prefix: str) -> None:
        for name, item in vars(holder).items():
            if isinstance(item, type) and item.__module__ == module.__name__:
                look(item, f"{prefix}{name}.")
                continue
            function = inspect.unwrap(item.fget) if isinstance(item, property) and item.fget else item
            function = getattr(function, "__wrapped__", function)
            if isinstance(function, staticmethod | classmethod):
                function = function.__func__
            if isinstance(function, FunctionType) and function.__code__.co_filename == module.__file__:
                found[f"{prefix}{name}"] = function

    look(module, "")
    return found
