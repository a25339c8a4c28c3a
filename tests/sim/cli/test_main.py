"""What all commands share."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

import sim.cli.progress
from sim.cli.main import main
from sim.cli.progress import counted, shown
from sim.run import Progress
from tests.sim.cli.support import call, lines, write

COMMANDS = ("run", "scale", "fuzz", "replay", "report", "list")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_examples_of_it(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    out = capfd.readouterr().out
    assert ended.value.code == 0
    assert f"  python -m sim {command}" in out.partition("examples:\n")[2]
    assert "--json" in out


def test_the_list_has_every_scenario_and_role(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capfd, "list")
    assert (status, err) == (0, "")
    assert "\n  mixed " in out
    assert "\n  sign-flip " in out
    described = lines(call(capfd, "list", "--json")[1])
    assert {one["event"] for one in described} == {"scenario", "role"}
    assert all(f"\n  {one['name']} " in out for one in described)


def test_a_list_is_quick() -> None:
    code = (
        "import sys; from sim.cli.main import main; main(['list']);"
        "print([name for name in ('matplotlib', 'psutil', 'sim.run') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=150)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("[]", "")


class Command:
    """A command that gets a signal, which may become another error on its way."""

    def __init__(self, error: BaseException | None = None, number: signal.Signals | None = None) -> None:
        self.error, self.number = error, number

    def __call__(self, _: object) -> int:
        try:
            if self.number is not None:
                signal.raise_signal(self.number)
        finally:
            if self.error is not None:
                raise self.error
        return 0


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.parametrize(
    "error", [None, BaseExceptionGroup("nursery", [KeyboardInterrupt()]), RuntimeError("trio")]
)
def test_a_signal_is_one_line_whatever_becomes_of_it_and_handlers_are_as_before(
    number: signal.Signals,
    status: int,
    word: str,
    error: BaseException | None,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr("sim.cli.main._command", lambda name: Command(error, number))
    assert call(capfd, "list") == (status, "", f"sim: {word}\n")
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_is_ignored_stays_so(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        monkeypatch.setattr("sim.cli.main._command", lambda name: Command(number=signal.SIGINT))
        assert call(capfd, "list") == (0, "", "")
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_bug_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.cli.main._command", lambda name: Command(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["list"])


def test_a_run_may_be_in_another_thread(tmp_path: Path) -> None:
    status: list[int] = []
    words = ["run", write(tmp_path), "--no-report", "--json"]
    thread = threading.Thread(target=lambda: status.append(main(words)))
    thread.start()
    thread.join(30)
    assert status == [0]


def test_a_terminal_gets_a_bar_and_a_file_does_not(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def show() -> str:
        with shown("mixed", 10.0, as_json=False) as tell:
            tell(Progress(virtual_seconds=4.0, planned_seconds=12.0, events=7))
        with counted("many", 3, as_json=False) as ended:
            ended()
        return capfd.readouterr().err

    assert show() == ""
    monkeypatch.setattr(
        sim.cli.progress, "Console", lambda stderr: Console(stderr=True, force_terminal=True, width=100)
    )
    err = show()
    assert "4 of 12 virtual s" in err
    assert "1 of 3" in err
