"""What the command lines of all rooms share: one clear line for unusable arguments, and numbers in bounds."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from p2p.errors import InvalidInput


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are `InvalidInput`; options cannot be abbreviated.

    The epilog, with the examples, keeps its line breaks. Subparsers are of this class too.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            **{
                "formatter_class": argparse.RawDescriptionHelpFormatter,
                "allow_abbrev": False,
                **settings,
            }
        )

    def error(self, message: str) -> NoReturn:
        """Raises `InvalidInput` with the message and where to look."""
        raise InvalidInput(f"{message} (see {self.prog} --help)")


def number(convert: Callable[[str], Any], low: float, high: float) -> Callable[[str], Any]:
    """An argument type: what `convert` (int or float) makes of the text, from `low` to `high`."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} to {high}")
        return value

    return parse
