from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from federated import folders
from sim.heap import SimulationError
from sim.report import ReportError, make_folder, show_again, write_run
from sim.report import folder as folder_module
from sim.run import Outcome
from sim.scenario.model import Scenario
from tests.sim.report.support import busy_outcome, quiet_outcome

COMMAND = ["python", "-m", "sim", "run", "busy day", "--seed", "7"]
EMPTY = ("meta", "br", "hr", "img", "link", "input")


@pytest.fixture(scope="module")
def busy() -> Outcome:
    return busy_outcome()


@pytest.fixture(scope="module")
def written(busy: Outcome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("busy")
    write_run(folder, busy, command=COMMAND, measured={"wall_seconds": 2.0, "rss_bytes": 1_500_000})
    return folder


class _Reader(HTMLParser):
    """Checks that every element is closed, and gathers what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in EMPTY:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.links.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(page: Path) -> _Reader:
    reader = _Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def test_a_folder_is_named_for_the_run_and_never_used_twice(tmp_path: Path) -> None:
    scenario = Scenario(name="small", peers=10)
    one, other = (make_folder(tmp_path / "runs", scenario, 7) for _ in range(2))
    assert one.name.startswith("small-10-7-")
    assert other.name == one.name + "-2"
    changed = scenario.model_copy(update={"settle": 1.0})
    assert make_folder(tmp_path / "runs", changed, 7).name[:-8] == one.name[:-8]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ReportError, match="cannot make the folder"):
        make_folder(tmp_path / "file", Scenario(name="small"), 1)
    monkeypatch.setattr(folders, "MAX_ATTEMPTS", 1)
    make_folder(tmp_path, Scenario(name="small"), 1)
    with pytest.raises(SimulationError, match="full of runs"):
        make_folder(tmp_path, Scenario(name="small"), 1)


def test_everything_that_repeats_the_run_is_in_its_folder(written: Path, busy: Outcome) -> None:
    run = json.loads((written / "run.json").read_text())
    assert Scenario.model_validate(run["scenario"]) == busy.scenario
    assert run["command"] == "python -m sim run 'busy day' --seed 7"
    assert sorted(run["versions"]) == ["atcp", "cryptography", "numpy", "python", "trio"]
    result = json.loads((written / "result.json").read_text())
    assert result["trace_hash"] == busy.trace_hash
    assert result["report"] == str(written)
    assert result["assertions"][0] == {"name": busy.checks[0].name, "holds": True, "seen": "always"}
    assert (result["wall_seconds"], result["rss_bytes"], result["passed"]) == (2.0, 1_500_000, False)


def test_tables_have_a_row_for_each_second_and_round(written: Path) -> None:
    with (written / "seconds.csv").open(newline="") as file:
        seconds = list(csv.DictReader(file))
    assert [row["second"] for row in seconds] == [str(second) for second in range(37)]
    assert seconds[5]["published"] == "3"
    assert float(seconds[5]["p99_ms"]) > float(seconds[5]["p50_ms"]) > 0
    assert seconds[30]["p99_ms"] == ""
    assert seconds[20]["running"] == "39"
    assert sum(int(row["delivered"]) for row in seconds) == 60 * 38
    with (written / "rounds.csv").open(newline="") as file:
        assert [row["number"] for row in csv.DictReader(file)] == ["0", "1", "2"]


def test_the_page_is_whole_and_fetches_nothing(written: Path) -> None:
    page = _read(written / "index.html")
    assert "script" not in page.tags
    outside = [link for link in page.links if not link.startswith("#")]
    assert set(outside) <= {"run.json", "result.json", "metrics.json", "seconds.csv", "rounds.csv", "trace"}
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_the_page_says_what_failed_and_how_to_repeat_it(written: Path, busy: Outcome) -> None:
    text = _read(written / "index.html").text
    assert "✗ FAILED: 2 of 14 checks" in text
    assert "python -m sim run 'busy day' --seed 7" in text
    assert busy.trace_hash in text
    for check in busy.checks:
        assert check.name in text
    # what people write is text, never markup
    assert 'Everything at once & "quoted" <b>text</b>' in text
    assert "<reset>" in text


def test_every_kind_of_plot_is_drawn(written: Path) -> None:
    assert sorted(path.stem for path in (written / "plots").glob("*.svg")) == [
        "accuracy",
        "bandwidth",
        "copies",
        "degrees",
        "degrees-over-time",
        "delivery-cdf",
        "gossip-hops",
        "latency-over-time",
        "lookup-hops",
        "scores",
        "topology",
    ]


def test_a_quiet_run_has_a_page_as_well(tmp_path: Path) -> None:
    outcome = quiet_outcome()
    written = write_run(tmp_path, outcome, command=COMMAND, measured={"wall_seconds": 0.0, "rss_bytes": 1})
    page = _read(written.page)
    assert "✓ passed" in page.text
    assert "at once" in page.text
    assert written.note is None


def test_the_page_compares_with_the_bare_heap(tmp_path: Path) -> None:
    measured = {
        "wall_seconds": 1.0,
        "rss_bytes": 1,
        "bytes_per_peer": 20_000,
        "events_per_second": 50_000,
        "bare_heap_events_per_second": 400_000,
    }
    text = _read(write_run(tmp_path, quiet_outcome(), command=COMMAND, measured=measured).page).text
    assert "20 kB" in text
    assert "50,000" in text
    assert "of a bare heap's rate12.5 %" in text


def test_many_troubles_do_not_flood_the_page(tmp_path: Path) -> None:
    outcome = busy_outcome()
    written = write_run(
        tmp_path, _with_trouble(outcome, 500), command=COMMAND, measured={"wall_seconds": 1.0, "rss_bytes": 1}
    )
    text = _read(written.page).text
    assert "and 300 more, in metrics.json" in text
    assert len(json.loads((tmp_path / "metrics.json").read_text())["trouble"]) == 500


def _with_trouble(outcome: Outcome, count: int) -> Outcome:
    from dataclasses import replace

    return replace(outcome, trouble=[outcome.trouble[0]] * count)


def test_without_matplotlib_the_rest_is_written(
    busy: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "available", lambda: False)
    written = write_run(tmp_path, busy, command=COMMAND, measured={"wall_seconds": 1.0, "rss_bytes": 1})
    assert written.note is not None
    assert "pip install" in written.note
    assert written.note in _read(written.page).text
    assert not (tmp_path / "plots").exists()


def test_a_run_without_anything_to_draw_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "draw_plots", lambda metrics: [])
    written = write_run(
        tmp_path, quiet_outcome(), command=COMMAND, measured={"wall_seconds": 1.0, "rss_bytes": 1}
    )
    assert "Nothing happened that could be drawn." in _read(written.page).text


def test_a_folder_can_be_shown_again(written: Path) -> None:
    page = (written / "index.html").read_text()
    (written / "index.html").unlink()
    assert show_again(written).page.read_text() == page


def test_what_is_no_folder_of_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="is not the folder of a run"):
        show_again(tmp_path)
    for name in ("run", "result", "metrics"):
        (tmp_path / f"{name}.json").write_text("[]")
    with pytest.raises(ReportError, match="damaged"):
        show_again(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ReportError, match="damaged"):
        show_again(tmp_path)
    for name in ("run", "result", "metrics"):
        (tmp_path / f"{name}.json").write_text("{}")
    with pytest.raises(ReportError, match="damaged"):
        show_again(tmp_path)


def test_a_folder_that_is_gone_is_an_error(busy: Outcome, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="cannot write the report"):
        write_run(tmp_path / "gone", busy, command=COMMAND, measured={"wall_seconds": 1.0, "rss_bytes": 1})
