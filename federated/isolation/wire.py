"""What a peer and its plugin process say to each other: bytes ⇄ values.

A frame is its length, 8 bytes big-endian, and a msgpack map; tensors are in it as `federated.codec` encodes
them. Nothing is unpickled, on either side: whatever a plugin has done to its process, the peer gets values
of the types below or a `WireError`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any

import msgpack

from federated.learner import MAX_METRICS, MEASURES, LocalUpdate

LENGTH = 8  # bytes in front of a frame
MAX_REQUEST = 1 << 33  # bytes; twice the largest model, `federated.manifest.MAX_UPDATE`, with its state
MAX_NUMBER = 1 << 63  # of examples
MAX_TEXT = 4096  # characters of a line about a failure
MAX_NAME = 256  # characters of the name of a metric


class WireError(Exception):
    """The other process said something that is no message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Load the data, make the first model. `plugins` maps names to where their classes are."""

    manifest: bytes
    plugins: Mapping[str, str]
    peer: str
    members: tuple[str, ...]
    index: int
    data_dir: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Train on `parameters`, encoded as `state` is; `steps_per_second` is what is known of the pace."""

    parameters: bytes
    round: int
    steps_per_second: float
    state: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """Measure `parameters` on what is held out."""

    parameters: bytes
    state: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """Take up data that came since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The data are loaded and this is the first model; the rest as in `federated.learner.Learner`."""

    initial: bytes
    profile: Mapping[str, Any]
    refreshes: bool
    remembers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The training is done."""

    update: LocalUpdate


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The model is measured."""

    measures: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """The data are those of now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """It came to nothing, for a reason of the `kind` "plugin", "data" or "stopped".

    `ends` says that the process goes no further: it has run out of memory, and another one has not.
    """

    kind: str
    reason: str
    ends: bool = False


Request = Prepare | Train | Evaluate | Refresh
Reply = Ready | Trained | Measured | Refreshed | Failed

KINDS = ("plugin", "data", "stopped")
_TYPES: dict[str, type] = {
    message.__name__: message
    for message in (Prepare, Train, Evaluate, Refresh, Ready, Trained, Measured, Refreshed, Failed)
}


def encode(message: Request | Reply, limit: int) -> list[bytes]:
    """The frame of `message`, in the parts to be sent. Raises `WireError` above `limit` bytes."""
    body = {
        "": type(message).__name__,
        **{each.name: getattr(message, each.name) for each in fields(message)},
    }
    if isinstance(message, Trained):
        update = message.update
        body["update"] = {each.name: getattr(update, each.name) for each in fields(update)}
    if isinstance(message, Ready):
        body["profile"] = json.dumps(dict(message.profile))
    try:
        data: bytes = msgpack.packb(body)
    except (TypeError, ValueError, OverflowError) as exc:
        raise WireError(f"it cannot be sent: {exc}") from exc
    if len(data) > limit:
        raise WireError(f"it has {len(data)} bytes, more than the {limit} that it may have")
    return [len(data).to_bytes(LENGTH, "big"), data]


def decode(data: bytes | bytearray) -> Request | Reply:
    """The message in the body of a frame. Raises `WireError`."""
    try:
        body = msgpack.unpackb(data, raw=False, strict_map_key=True, use_list=False)
        kind = _TYPES[body.pop("")]
        decoder = _DECODERS.get(kind)
        return kind(**(body if decoder is None else decoder(body)))  # type: ignore[no-any-return]
    except WireError:
        raise
    except Exception as exc:  # msgpack, KeyError, TypeError: a stranger's code was in that process
        raise WireError(f"{type(exc).__name__}: {exc}"[:MAX_TEXT]) from exc


def _ready(body: dict[str, Any]) -> dict[str, Any]:
    profile = json.loads(_typed(body["profile"], str))
    return {
        "initial": _typed(body["initial"], bytes),
        "profile": _typed(profile, dict),
        "refreshes": _typed(body["refreshes"], bool),
        "remembers": _typed(body["remembers"], bool),
    }


def _trained(body: dict[str, Any]) -> dict[str, Any]:
    update = _typed(body["update"], dict)
    if not 0 <= _typed(update["examples"], int) < MAX_NUMBER:
        raise WireError("a count of examples out of bounds")
    state = update["state"]
    metrics = _numbers(update["metrics"])
    if len(metrics) > MAX_METRICS or any(len(name) > MAX_NAME for name in metrics):
        raise WireError("metrics out of bounds")
    return {
        "update": LocalUpdate(
            data=_typed(update["data"], bytes),
            examples=update["examples"],
            state=None if state is None else _typed(state, bytes),
            metrics=metrics,
        )
    }


def _measured(body: dict[str, Any]) -> dict[str, Any]:
    measures = _numbers(body["measures"])
    if measures.keys() != set(MEASURES):
        raise WireError("other measures than were asked for")
    return {"measures": measures}


def _failed(body: dict[str, Any]) -> dict[str, Any]:
    if body["kind"] not in KINDS:
        raise WireError("a failure of no known kind")
    line = (_typed(body["reason"], str).splitlines() or [""])[0]
    return {"kind": body["kind"], "reason": line[:MAX_TEXT], "ends": _typed(body["ends"], bool)}


def _numbers(found: Any) -> dict[str, float | None]:
    numbers = {_typed(name, str): value for name, value in _typed(found, dict).items()}
    for value in numbers.values():
        if value is not None and not isfinite(_typed(value, float)):
            raise WireError("a number that is none")
    return numbers


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise WireError(f"a {type(value).__name__} in the place of a {kind.__name__}")
    return value


_DECODERS: dict[type, Callable[[dict[str, Any]], dict[str, Any]]] = {
    Ready: _ready,
    Trained: _trained,
    Measured: _measured,
    Failed: _failed,
}
