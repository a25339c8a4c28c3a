"""A whole task in one process: its members talk over a bus, and what all of them compute is computed once."""

from federated.local.driver import Tell, local_keys, run_local

__all__ = ["Tell", "local_keys", "run_local"]
