"""A run for people and programs: its folder, plots, page and table."""

from sim.report.folder import RUNS, TRACE, ReportError, Written, make_folder, show_again, versions, write_run
from sim.report.result import result_of
from sim.report.table import print_result

__all__ = [
    "RUNS",
    "TRACE",
    "ReportError",
    "Written",
    "make_folder",
    "print_result",
    "result_of",
    "show_again",
    "versions",
    "write_run",
]
