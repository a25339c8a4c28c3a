"""Figures in words: `latency_p99_ms` of 123.4 is "latency p99", "123.4 ms"."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from sim.record import Figure

_UNITS = (("_ms", " ms"), ("_per_peer_second", " per peer and second"), ("_seconds", " s"))


def in_words(name: str, value: Figure) -> tuple[str, str]:
    """What a figure is called and its value with a unit, for people."""
    if value is None:
        return name.replace("_", " "), "not measured"
    if name.startswith("bytes_") and isinstance(value, int | float):
        rest = name.removeprefix("bytes_").removesuffix("per_peer_second").strip("_")
        ending = " per peer and second" if name.endswith("_per_peer_second") else ""
        return f"traffic {rest}".strip(), size(value) + ending
    if name.endswith("_share") and isinstance(value, int | float):
        return name.removesuffix("_share").replace("_", " "), f"{100 * value:.4g} %"
    if name.endswith("_accuracy") and isinstance(value, int | float):
        return name.replace("_", " "), f"{100 * value:.4g} %"
    for ending, unit in _UNITS:
        if name.endswith(ending):
            return name.removesuffix(ending).replace("_", " "), number(value) + unit
    return name.replace("_", " "), number(value)


def number(value: Figure) -> str:
    """A number as people write it; other values as they are."""
    match value:
        case bool() | str() | None:
            return str(value)
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}"


def size(count: float) -> str:
    """An amount of bytes, to three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def speed(result: Mapping[str, Any]) -> str:
    """Virtual seconds for each second of the wall clock, while there was work if that was measured."""
    if result.get("speed"):
        return f"{result['speed']:.3g} × real time"
    wall = result["wall_seconds"]
    return f"{result['virtual_seconds'] / wall:.3g} × real time" if wall else "at once"


def command_line(words: Sequence[str]) -> str:
    """The words as one line for a shell."""
    return shlex.join(words)
