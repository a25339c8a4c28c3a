"""`python -m sim report`: plots and page of a run's folder, drawn anew."""

from __future__ import annotations

import argparse
import json
import sys

from p2p.errors import InvalidInput
from sim.cli.progress import Results
from sim.report import ReportError, print_result, show_again


def report(arguments: argparse.Namespace) -> int:
    """Draws and prints; 0 when the run passed, 1 when not."""
    try:
        written = show_again(arguments.path)
    except ReportError as exc:
        raise InvalidInput(str(exc)) from exc
    if written.note is not None:
        print(f"sim: {written.note}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(written.result))
    else:
        print_result(written.result, Results())
    return 0 if written.result["passed"] else 1
