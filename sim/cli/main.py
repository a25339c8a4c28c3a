"""`python -m sim`: parses the command line and calls one command."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from p2p.arguments import Parser, number
from p2p.errors import InvalidInput
from sim.engine.logs import DEFAULT_LEVEL, logged
from sim.heap import SimulationError

MAX_SEED = (1 << 63) - 1
MAX_PEERS = 20_000
MAX_SEEDS = 1_000_000
MAX_WORKERS = 1024

EXAMPLES = """\
examples:
  python -m sim list
  python -m sim run mixed --peers 100 --seed 1
  python -m sim scale --peers 100,300,1000
  python -m sim fuzz --seeds 200
  python -m sim replay sim-runs/mixed-100-1-…

Each command has its own --help. The same scenario, seed and version give the same trace hash, on any machine
and any Python from 3.11. Results go to stdout; progress, logs and what is wrong go to stderr.
Exit status: 0 when everything holds, 1 when something does not, 2 when it could not be done.
"""

RUN = """\
examples:
  python -m sim run mixed
  python -m sim run gossip --peers 1000 --rung cores --seed 7
  python -m sim run my-scenario.toml --rung full --out reports
  python -m sim run digits --task wine --peers 30
  python -m sim run mixed --json --no-report | tail -n 1

The folder that a run leaves has parameters, figures, trace, plots and a page, index.html, that shows them.
"""

SCALE = """\
examples:
  python -m sim scale
  python -m sim scale gossip --rung cores --peers 100,1000,10000
  python -m sim scale churn --peers 50,100,200 --engine ray --workers 2
"""

FUZZ = """\
examples:
  python -m sim fuzz --seeds 200
  python -m sim fuzz --seeds 1 --first 42
  python -m sim fuzz --scenario my-scenario.toml --rung cores --keep-going

Of a seed that fails it prints the command that repeats it, and writes a smaller plan that fails too.
"""

REPLAY = """\
examples:
  python -m sim replay sim-runs/mixed-50-1-…
  python -m sim replay sim-runs/fuzz/seed-42.json

A folder's run must have the same trace hash as before; a plan of fuzz must hold, now that it is mended.
"""

REPORT = """\
examples:
  python -m sim report sim-runs/mixed-50-1-…

Useful when matplotlib was not there, or when the plots of this version show more. Nothing is run.
"""

LIST = """\
examples:
  python -m sim list
  python -m sim list --json
"""

Command = Callable[[argparse.Namespace], int]


def sizes(text: str) -> list[int]:
    """A list of numbers of peers, like 100,300,1000."""
    parse = number(int, 1, MAX_PEERS)
    return [parse(part) for part in text.split(",")]


def make_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="python -m sim",
        description="Run hundreds or thousands of ATCP peers in one process, in virtual time.",
        epilog=EXAMPLES,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, about: str, epilog: str) -> Parser:
        added = commands.add_parser(name, help=about, description=f"{about.capitalize()}.", epilog=epilog)
        assert isinstance(added, Parser)
        return added

    _add_run(command("run", "run one scenario", RUN))
    _add_scale(command("scale", "run a scenario at several sizes: a table and a plot", SCALE))
    _add_fuzz(command("fuzz", "look for faults that a network does not survive", FUZZ))
    replay = command("replay", "run again what a folder or a plan describes, and compare", REPLAY)
    replay.add_argument("path", type=Path, metavar="PATH", help="a run's folder, or a plan that fuzz wrote")
    _add_output(replay)
    report = command("report", "make plots and page of a run's folder anew", REPORT)
    report.add_argument("path", type=Path, metavar="FOLDER", help="a run's folder")
    _add_output(report)
    _add_output(command("list", "name the scenarios, and the roles of adversaries", LIST))
    return parser


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line; the last is the result")
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default=DEFAULT_LEVEL,
        metavar="LEVEL",
        help=f"of the peers' logs on stderr: debug, info, warning, error (default {DEFAULT_LEVEL})",
    )


def _add_scenario(parser: argparse.ArgumentParser, default: str | None) -> None:
    add = parser.add_argument
    about = "a name (see list) or the path of a TOML file"
    if default is None:
        add("scenario", metavar="SCENARIO", help=about)
    else:
        add("scenario", metavar="SCENARIO", nargs="?", default=default, help=f"{about} (default {default})")
    add(
        "--rung",
        choices=("full", "light", "cores"),
        help="every byte, no encryption, or the protocol machines alone (default: the scenario's)",
    )


def _add_folder(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"where to write {what} (default sim-runs/…)")
    parser.add_argument("--no-report", action="store_true", help="write no files")


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_scenario(parser, None)
    parser.add_argument(
        "--peers", type=number(int, 1, MAX_PEERS), metavar="N", help="how many (default: the scenario's)"
    )
    parser.add_argument(
        "--seed", type=number(int, 0, MAX_SEED), default=1, metavar="S", help="decides everything (default 1)"
    )
    parser.add_argument(
        "--task", metavar="NAME", help="a plugin that has both data and model, for the scenario's"
    )
    _add_folder(parser, "the report")
    _add_output(parser)


def _add_scale(parser: argparse.ArgumentParser) -> None:
    _add_scenario(parser, "gossip")
    parser.add_argument(
        "--peers",
        type=sizes,
        default=[100, 300, 1000],
        metavar="N,N,…",
        help="the sizes (default 100,300,1000)",
    )
    parser.add_argument(
        "--seed", type=number(int, 0, MAX_SEED), default=1, metavar="S", help="of all runs (default 1)"
    )
    parser.add_argument(
        "--engine",
        choices=("processes", "ray"),
        default="processes",
        help="who does the runs: processes of this machine (default), or a Ray cluster",
    )
    parser.add_argument(
        "--workers",
        type=number(int, 1, MAX_WORKERS),
        default=1,
        metavar="N",
        help="runs at a time; more than one make the figures of speed worse (default 1)",
    )
    _add_folder(parser, "table and plot")
    _add_output(parser)


def _add_fuzz(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seeds", type=number(int, 1, MAX_SEEDS), default=100, metavar="N", help="how many (default 100)")
    add(
        "--first",
        type=number(int, 0, MAX_SEED - MAX_SEEDS),
        default=1,
        metavar="S",
        help="the first (default 1)",
    )
    add("--peers", type=number(int, 3, 1000), default=20, metavar="N", help="of each network (default 20)")
    add("--scenario", metavar="SCENARIO", help="what the network does (default: drawn with the faults)")
    add("--rung", choices=("full", "light", "cores"), help="of all runs (default: drawn)")
    add("--keep-going", action="store_true", help="do not stop at the first seed that fails")
    add("--workers", type=number(int, 1, MAX_WORKERS), metavar="N", help="processes (default: two or more)")
    _add_folder(parser, "plans that fail")
    _add_output(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    stop = _Stop()
    try:
        arguments = make_parser().parse_args(argv)
        with logged(arguments.log_level), stop.on_signals():
            status = _command(arguments.command)(arguments)
            sys.stdout.flush()
        return status
    except (InvalidInput, SimulationError) as exc:
        print(f"sim: {exc}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read our lines is gone; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException:
        if stop.number is None:
            raise
        print(f"sim: {'terminated' if stop.number == signal.SIGTERM else 'interrupted'}", file=sys.stderr)
        return 128 + stop.number


class _Stop:
    """Ctrl-C and SIGTERM: whatever runs is left at once, through the clean-up of all who hold something."""

    number: int | None = None  # of the signal that came

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listens while the body runs, if it runs in the main thread: no other one may."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # trio would wait for one of its tasks to run, while a simulation may be busy without any
        before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
        for each, handler in before.items():
            if handler is not signal.SIG_IGN:  # as of a shell's background jobs
                signal.signal(each, self._end)
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _end(self, number: int, _: object) -> None:
        """A simulation ends between two events; a second signal, and all else, ends at once."""
        first, self.number = self.number is None, number
        simulation = sys.modules.get("sim.run")
        if not (first and simulation is not None and simulation.interrupt()):
            raise KeyboardInterrupt


def _command(name: str) -> Command:
    """The function of a command; each brings its own imports, so `--help` and `list` are quick."""
    match name:
        case "run":
            from sim.cli.run import run as command
        case "scale":
            from sim.cli.scale import scale as command
        case "fuzz":
            from sim.cli.fuzz import fuzz as command
        case "replay":
            from sim.cli.replay import replay as command
        case "report":
            from sim.cli.report import report as command
        case _:
            from sim.cli.listing import show as command
    return command
