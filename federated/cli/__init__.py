"""`atcp`: the command line of the training layer."""

from federated.cli.program import main

__all__ = ["main"]
