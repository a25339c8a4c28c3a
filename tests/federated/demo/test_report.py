from __future__ import annotations

import io
import json
import re
import sys

import pytest
from rich.console import Console

from federated import folders
from federated.demo.ledger import Ledger
from federated.demo.page import page
from federated.demo.progress import ProgressView, ejection_line, result_table
from federated.demo.report import draw_accuracy, make_folder, write_report
from federated.errors import FederatedError
from tests.federated.demo.test_ledger import event

TASK = {
    "name": "digits <one>",
    "trainer": "numpy",
    "accuracy": 0.96,
    "centralised_accuracy": 0.97,
    "rounds": 2,
    "certified": 2,
    "digests_agree": True,
    "slowest_phase": "train",
    "ejections": [
        {
            "peer": "12D3KooWliar",
            "round": 2,
            "proof": "ab" * 32,
            "evidence": "cd" * 40,
            "votes": [{"choice": "notarize", "block": "1" * 64}, {"choice": "notarize", "block": "2" * 64}],
            "proven": True,
        }
    ],
    "history": [
        {
            "number": number,
            "accuracy": accuracy,
            "bytes_sent": 1_000_000 * number,
            "digests": {"a": "x" * 64, "b": "xyx"[number - 1] * 64},
            "blocks": blocks,
            "phases": {"train": 0.5, "vote": 0.125} if number == 1 else {},
            "participants": ["a"],
            "seconds": 0.5,
            "skipped": number == 2,
            "view": 2,
            "votes": 4,
        }
        for number, accuracy, blocks in (
            (1, 0.9, {"a": "k", "b": "k"}),
            (2, None, {"a": "k", "b": "l"}),
            (3, 0.95, {}),
        )
    ],
}
RESULTS = {
    "settings": {"peers": 3, "rounds": 3},
    "accuracy": 0.96,
    "centralised_accuracy": 0.97,
    "rounds": 2,
    "certified": 2,
    "digests_agree": True,
    "seconds": 3.0,
    "bytes_sent": 2_000_000,
    "kills": [{"peer": "c", "round": 1, "back_in_round": 2}],
    "liars": ["12D3KooWliar"],
    "liars_ejected": True,
    "tasks": [TASK],
}


def test_a_report_is_a_folder_with_numbers_and_a_picture(tmp_path):
    folder = make_folder(tmp_path / "reports", "one")
    write_report(folder, RESULTS)
    written = json.loads((folder / "results.json").read_text())
    assert written["accuracy"] == 0.96
    assert set(written["versions"]) == {"atcp", "python"}
    assert (folder / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert "accuracy.png" in (folder / "report.html").read_text()


def test_two_tasks_are_in_one_picture(tmp_path):
    assert draw_accuracy(tmp_path / "two.png", {**RESULTS, "tasks": [TASK, {**TASK, "name": "other"}]})


def test_the_page_shows_certificates_and_evidence():
    text = page(RESULTS, {"atcp": "1.0"}, [])
    assert "<h1>Not everything held</h1>" in text
    assert "digits &lt;one&gt;" in text
    assert "3 peers trained for 2 rounds, 1 of them lied" in text
    for part in (
        "4 votes, view 2",
        "two certificates!",
        "none",
        "0.125",
        "cd" * 40,
        "12D3KooWliar",
        "Killed",
    ):
        assert part in text
    assert "both signatures are its own" in text
    assert "<img" not in text
    quiet = {**TASK, "ejections": [], "accuracy": None, "digests_agree": False}
    held = {**RESULTS, "rounds": 3, "certified": 3, "kills": [], "liars": [], "tasks": [quiet]}
    text = page(held, {}, ["accuracy.png"])
    assert "<h1>Everything held</h1>" in text
    assert "The models do not agree" in text
    assert "Killed" not in text
    assert "lied" not in text


def test_a_second_report_of_one_second_has_its_own_folder(tmp_path):
    assert make_folder(tmp_path, "one") != make_folder(tmp_path, "one")


def test_a_parent_full_of_reports_of_one_name_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MAX_ATTEMPTS", 1)
    make_folder(tmp_path, "one")
    with pytest.raises(FederatedError, match="full of reports called one"):
        make_folder(tmp_path, "one")


def test_a_report_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FederatedError, match="cannot make the report folder"):
        make_folder(tmp_path / "file", "one")
    with pytest.raises(FederatedError, match="cannot write the report"):
        write_report(tmp_path / "missing", RESULTS)


def test_without_matplotlib_there_is_no_picture(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not draw_accuracy(tmp_path / "accuracy.png", RESULTS)
    assert list(tmp_path.iterdir()) == []


def test_an_ejection_is_one_line():
    [ejection] = TASK["ejections"]
    line = ejection_line(ejection)
    assert line == (
        "ejected …KooWliar in round 2: voted notarize 11111111 and notarize 22222222;"
        " both signatures are its own"
    )
    assert "?; the evidence is missing or false" in ejection_line(
        {**ejection, "proven": False, "votes": None}
    )


def test_the_table_shows_each_round():
    console = Console(file=io.StringIO(), width=80)
    console.print(result_table(RESULTS, TASK))
    text = console.file.getvalue()
    assert "0.9000" in text
    assert "skipped" in text
    assert "disagree" in text
    assert "x" * 8 in text
    assert "4 votes, view 2" in text
    assert "two certificates!" in text
    assert "…" not in text  # nothing is cut off
    assert "0.12" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_follows_rounds_and_deaths(terminal):
    console = Console(file=io.StringIO(), width=160, force_terminal=terminal)
    view, ledger = ProgressView(console, 3), Ledger(3)
    with view.shown():
        view({"event": "started", "peers": 3}, ledger)
        for peer in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
            ledger.add_round(peer, 0, event(1))
            view({**event(1), "peer": peer}, ledger)
        view({"event": "phase"}, ledger)
        view({"event": "killed", "peer": "cccccccccccc", "round": 2}, ledger)
        view({"event": "restarted", "peer": "cccccccccccc"}, ledger)
        ledger.add_round("cccccccccccc", 1, event(2, accuracy=None))
        view({**event(2, accuracy=None), "peer": "cccccccccccc"}, ledger)
        view({"event": "ejected", "peer": "dddddddddddd", "round": 2}, ledger)
        view({"event": "lost", "peer": "bbbbbbbbbbbb", "reason": "gone"}, ledger)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    for part in ("kill -9", "…cccccccc in round 2", "started again", "lost", "gone", "…dddddddd in round 2"):
        assert part in text
    if not terminal:
        other = Ledger(3, name="second")
        other.add_round("aaaaaaaaaaaa", 0, event(1))
        view({**event(1), "peer": "aaaaaaaaaaaa"}, other)
        assert "second round 1: accuracy 0.510" in console.file.getvalue()
        assert "round 1: accuracy 0.510  peers 3  sent 0.0 MB  slowest phase: vote" in text
        assert text.count("round 1:") == 1
        assert "round 2: accuracy –  peers 3" in text
