"""Logs of simulated peers."""

from __future__ import annotations

import logging

import pytest
import trio

from sim.engine.logs import MAX_ALIKE, level, logged, show_logs

logger = logging.getLogger("p2p.somewhere")


def test_only_what_is_asked_for_is_shown_and_only_meanwhile(capsys: pytest.CaptureFixture[str]) -> None:
    before = level()
    with logged("error"):
        assert level() == "error"
        logger.warning("cannot reach %s", "somebody")
        logger.error("broken: %d", 7)
    logger.error("later")
    assert capsys.readouterr().err == "ERROR p2p.somewhere: broken: 7\n"
    assert level() == before


def test_a_line_that_is_said_again_and_again_is_shown_a_few_times(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with logged("info"):
        for number in range(100):
            logger.warning("cannot reach %d", number)
            logger.info("info %d", number)
        logger.warning("something else")
    lines = capsys.readouterr().err.splitlines()
    warnings = [line for line in lines if "info" not in line]
    assert len(warnings) == MAX_ALIKE + 2
    assert warnings[-2:] == [
        "p2p.somewhere: more like the last ones are not shown",
        "WARNING p2p.somewhere: something else",
    ]
    assert len(lines) - len(warnings) == 100


def test_a_line_says_which_node_and_when(capsys: pytest.CaptureFixture[str]) -> None:
    async def inner() -> None:
        logger.error("from within")

    async def node() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inner)

    async def main() -> None:
        logger.error("from above")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node, name="node 7")

    class Clock(trio.abc.Clock):
        def start_clock(self) -> None:
            pass

        def current_time(self) -> float:
            return 12.3456

        def deadline_to_sleep_time(self, deadline: float) -> float:
            return 0.0

    with logged("error"):
        trio.run(main, clock=Clock())
    assert capsys.readouterr().err.splitlines() == [
        "12.346 s: ERROR p2p.somewhere: from above",
        "12.346 s, node 7: ERROR p2p.somewhere: from within",
    ]


def test_without_trio_there_is_no_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(__import__("sys").modules, "trio")
    with logged("error"):
        logger.error("alone")
    assert capsys.readouterr().err == "ERROR p2p.somewhere: alone\n"


def test_a_worker_shows_logs_until_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, before = list(root.handlers), root.level
    try:
        show_logs("error")
        logger.error("of a worker")
        assert level() == "error"
    finally:
        root.handlers[:] = handlers
        root.setLevel(before)
    assert capsys.readouterr().err == "ERROR p2p.somewhere: of a worker\n"
