"""What the drivers of the shipped code have set, for this rung, which does without the drivers.

A test holds these against the drivers' own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from federated.manifest import TaskManifest

KAD_PROTOCOL = "/atcp/kad/1.0.0"
PARALLEL_LOOKUPS = 3  # of one refresh of a routing table
PROBE_QUEUE = 16  # members of a routing table that wait for a probe
REFRESH_INTERVAL = 600.0  # seconds between two refreshes
SETTLE = 1.0  # seconds between the first peer of a table and the refresh
STORAGE_RETRY = 1.0  # seconds between two attempts on a disk that fails
BROKEN = "validator"  # the rule that an update breaks when it makes the validator fail


def topic_of(manifest: TaskManifest) -> str:
    """The topic on which the members of a task talk."""
    return f"/atcp/task/{manifest.task_id.hex()}/1"
