from __future__ import annotations

import pickle
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.isolation.wire import (
    LENGTH,
    MAX_REQUEST,
    Evaluate,
    Failed,
    Measured,
    Prepare,
    Ready,
    Refresh,
    Refreshed,
    Reply,
    Request,
    Train,
    Trained,
    WireError,
    decode,
    encode,
)
from federated.learner import LocalUpdate

counts = st.integers(0, (1 << 63) - 1)
numbers = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))
names = st.text(max_size=256)
lines = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=4096)
updates = st.builds(
    LocalUpdate,
    data=st.binary(),
    examples=counts,
    state=st.none() | st.binary(),
    metrics=st.dictionaries(names, numbers, max_size=32),
)
messages = st.one_of(
    st.builds(
        Prepare,
        manifest=st.binary(),
        plugins=st.dictionaries(names, names),
        peer=names,
        members=st.lists(names).map(tuple),
        index=counts,
        data_dir=st.none() | names,
    ),
    st.builds(
        Train,
        parameters=st.binary(),
        round=counts,
        steps_per_second=st.floats(0, 1e9),
        state=st.binary(),
        key=st.binary(),
    ),
    st.builds(Evaluate, parameters=st.binary(), state=st.binary()),
    st.just(Refresh()),
    st.builds(
        Ready,
        initial=st.binary(),
        profile=st.dictionaries(names, st.integers() | names | st.lists(names)),
        refreshes=st.booleans(),
        remembers=st.booleans(),
    ),
    st.builds(Trained, update=updates),
    st.builds(Measured, measures=st.fixed_dictionaries({"accuracy": numbers, "loss": numbers})),
    st.just(Refreshed()),
    st.builds(Failed, kind=st.sampled_from(["plugin", "data", "stopped"]), reason=lines, ends=st.booleans()),
)


@given(messages)
def test_what_is_said_is_understood(message: Request | Reply) -> None:
    length, body = encode(message, MAX_REQUEST)
    assert int.from_bytes(length, "big") == len(body)
    assert len(length) == LENGTH
    assert decode(body) == message


@given(st.binary() | messages.map(lambda message: encode(message, MAX_REQUEST)[1][:-1]))
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data)


bodies: dict[str, dict[str, Any]] = {
    "Ready": {"": "Ready", "initial": b"", "profile": "{}", "refreshes": False, "remembers": False},
    "Trained": {"": "Trained", "update": {"data": b"", "examples": 1, "state": None, "metrics": {}}},
    "Measured": {"": "Measured", "measures": {"accuracy": 1.0, "loss": None}},
    "Failed": {"": "Failed", "kind": "data", "reason": "none", "ends": False},
}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("Ready", {"initial": "text"}),
        ("Ready", {"initial": None}),
        ("Ready", {"profile": "[]"}),
        ("Ready", {"profile": "{"}),
        ("Ready", {"profile": b"{}"}),
        ("Ready", {"refreshes": 1}),
        ("Ready", {"remembers": None}),
        ("Trained", {"update": {"data": b"", "examples": -1, "state": None, "metrics": {}}}),
        ("Trained", {"update": {"data": b"", "examples": 1 << 63, "state": None, "metrics": {}}}),
        ("Trained", {"update": {"data": b"", "examples": 1.0, "state": None, "metrics": {}}}),
        ("Trained", {"update": {"data": b"", "examples": True, "state": None, "metrics": {}}}),
        ("Trained", {"update": {"data": None, "examples": 1, "state": None, "metrics": {}}}),
        ("Trained", {"update": {"data": b"", "examples": 1, "state": "x", "metrics": {}}}),
        ("Trained", {"update": {"data": b"", "examples": 1, "state": None, "metrics": {"a": "1"}}}),
        ("Trained", {"update": {"data": b"", "examples": 1, "state": None, "metrics": {"a" * 257: 1.0}}}),
        ("Trained", {"update": {"data": b"", "examples": 1, "state": None, "metrics": {"a": float("nan")}}}),
        (
            "Trained",
            {
                "update": {
                    "data": b"",
                    "examples": 1,
                    "state": None,
                    "metrics": {str(number): 1.0 for number in range(33)},
                }
            },
        ),
        ("Trained", {"update": {"data": b"", "examples": 1, "state": None}}),
        ("Trained", {"update": [b""]}),
        ("Measured", {"measures": {"accuracy": 1.0}}),
        ("Measured", {"measures": {"accuracy": 1.0, "loss": float("inf")}}),
        ("Measured", {"measures": {"accuracy": 1.0, "loss": "low"}}),
        ("Failed", {"kind": "fate"}),
        ("Failed", {"reason": b"none"}),
        ("Failed", {"ends": 0}),
        ("Failed", {"": "Fallen"}),
        ("Failed", {"": ["Failed"]}),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, changes: dict[str, Any]) -> None:
    decode(msgpack.packb(bodies[name]))
    with pytest.raises(WireError):
        decode(msgpack.packb(bodies[name] | changes))


def test_a_line_has_an_end() -> None:
    body = bodies["Failed"] | {"reason": "a" * 10_000 + "\nand so on"}
    assert decode(msgpack.packb(body)) == Failed(kind="data", reason="a" * 4096)


def test_nothing_is_unpickled() -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("it was unpickled",))

    with pytest.raises(WireError):
        decode(pickle.dumps(Trap()))
    with pytest.raises(WireError):
        decode(msgpack.packb(bodies["Ready"] | {"initial": msgpack.ExtType(1, pickle.dumps(Trap()))}))


def test_what_is_too_long_or_has_no_form_is_not_sent() -> None:
    with pytest.raises(WireError, match="more than the 10 that it may have"):
        encode(Evaluate(parameters=bytes(20), state=b""), 10)
    with pytest.raises(WireError, match="cannot be sent"):
        encode(Trained(update=LocalUpdate(data=b"", examples=1 << 70)), MAX_REQUEST)
