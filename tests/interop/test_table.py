"""The page about interoperability: complete, the same every time, and of the versions that are installed."""

from __future__ import annotations

import json
import re

import pytest

from tests.interop.cases import CASES
from tests.interop.installed import JS_SHOWN, PACKAGES, PY_SHOWN, REQUIREMENTS, Implementation
from tests.interop.table import PAGE, Combination, combinations, page

ONE = Implementation("one-libp2p", ("one",), (("one", "1.0"), ("helper", "2.0")))
EVERYTHING = {each: list(CASES) for each in combinations(["one-libp2p"])}
THERE = Combination("one-libp2p", "ws", "tls", "they")


def test_every_connection_has_a_row_with_every_case() -> None:
    text = page([ONE], EVERYTHING, {})
    rows = re.findall(r"^\| one-libp2p \| (?:TCP|WebSocket) \|.*$", text, re.MULTILINE)
    assert len(rows) == 2 * 2 * 2
    assert all(row.count(" yes ") == len(CASES) for row in rows)
    assert "| one-libp2p | one 1.0, helper 2.0 |" in text


def test_the_order_in_which_tests_ran_changes_nothing() -> None:
    backwards = {each: EVERYTHING[each][::-1] for each in reversed(EVERYTHING)}
    assert page([ONE], backwards, {}) == page([ONE], EVERYTHING, {})


@pytest.mark.parametrize("known", [[], ["ping"]])
def test_what_was_not_tried_is_not_left_out_in_silence(known: list[str]) -> None:
    with pytest.raises(ValueError, match="nothing is known of"):
        page([ONE], EVERYTHING | {THERE: known}, {})


def test_what_a_peer_cannot_do_is_said_with_its_reason() -> None:
    cases = [case for case in CASES if case != "reset"]
    text = page([ONE], EVERYTHING | {THERE: cases}, {THERE: {"reset": "it knows none"}})
    assert text.count("| not with this peer |") == 1
    assert "- one-libp2p, reset: it knows none (WebSocket, TLS, they dial)\n" in text


def test_each_case_is_explained() -> None:
    assert all(case.__doc__ for case in CASES.values())


def test_the_page_is_of_the_versions_that_are_asked_for() -> None:
    text = PAGE.read_text(encoding="utf-8")
    asked = json.loads(PACKAGES.read_text())["dependencies"]
    for name in JS_SHOWN:
        assert f"{name} {asked[name]}" in text
    pinned = dict(line.split("==") for line in REQUIREMENTS.read_text().split() if "==" in line)
    for name in PY_SHOWN:
        assert f"{name} {pinned[name]}" in text
