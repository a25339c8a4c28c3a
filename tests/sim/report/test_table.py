from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from sim.report import print_result, result_of
from sim.report.wording import in_words, number, size
from tests.sim.report.support import busy_outcome, quiet_outcome


def _printed(result: dict[str, Any]) -> str:
    out = io.StringIO()
    print_result(result, Console(file=out, width=120))
    return out.getvalue()


def test_the_table_begins_with_what_failed() -> None:
    text = _printed(
        result_of(busy_outcome(), {"wall_seconds": 2.0, "rss_bytes": 2_000_000}, report="runs/[bold]x")
    )
    lines = text.splitlines()
    assert lines[0] == "busy: 40 peers, seed 7, rung light: FAILED"
    assert lines[1].strip() == "36.0 s simulated in 2.0 s (18 × real time), 12,345 events, 2 MB of memory"
    words = [line.split()[0] for line in lines if line.startswith("  ") and line.strip()]
    assert words.index("FAILED") < words.index("ok")
    assert "runs/[bold]x" in text


def test_the_speed_is_that_of_the_work_if_it_was_measured() -> None:
    measured = {"wall_seconds": 2.0, "rss_bytes": 1, "speed": 7.5}
    assert "7.5 × real time" in _printed(result_of(quiet_outcome(), measured))


def test_a_run_without_a_folder_names_none() -> None:
    text = _printed(result_of(quiet_outcome(), {"wall_seconds": 0.0, "rss_bytes": 2_000_000}))
    assert text.splitlines()[0].endswith("passed")
    assert "report" not in text
    assert "(at once)" in text


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("latency_p99_ms", 123.456, ("latency p99", "123.5 ms")),
        ("finds_ok_share", 0.95, ("finds ok", "95 %")),
        ("digits_accuracy", 0.91234, ("digits accuracy", "91.23 %")),
        ("digits_accuracy", None, ("digits accuracy", "not measured")),
        ("bytes_sent", 1_234_567, ("traffic sent", "1.23 MB")),
        ("bytes_per_peer_second", 1500.0, ("traffic", "1.5 kB per peer and second")),
        ("virtual_seconds", 2.0, ("virtual", "2 s")),
        ("messages", 1234, ("messages", "1,234")),
        ("good", True, ("good", "True")),
    ],
)
def test_figures_are_put_in_words(name: str, value: float | bool | None, words: tuple[str, str]) -> None:
    assert in_words(name, value) == words


def test_numbers_and_sizes_are_short() -> None:
    assert [number(value) for value in (0.12345, 12345.6, 1_000_000, "x", None)] == [
        "0.1235",
        "12,346",
        "1,000,000",
        "x",
        "None",
    ]
    assert [size(count) for count in (0, 999, 1000, 999_600, 5e9, 2e12, 5e15)] == [
        "0 B",
        "999 B",
        "1 kB",
        "1 MB",
        "5 GB",
        "2 TB",
        "5e+03 TB",
    ]
