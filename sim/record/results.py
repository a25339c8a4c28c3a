"""What the protocols achieved, whatever rung ran them: who got which messages, look-ups, models.

No times and no message ids are in it, so that the rungs can be compared: equal hashes mean that they agree.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.record.series import KINDS

if TYPE_CHECKING:
    from sim.record.recorder import Recorder

_FIND = KINDS.index("find")  # whom it found depends on who was met before, and so on times


def results_of(recorder: Recorder) -> dict[str, Any]:
    """A summary that JSON can hold. Sets of nodes are bitmaps in hexadecimal, node 0 in the highest bit.

    "messages": topic/publisher/ordinal → bytes of payload and who got it. "operations": number → kind, node,
    whether it ended well, hash of the result. "rounds": task → number → digest. "finished": task → nodes.
    """
    operations, rounds = recorder.operations, recorder.rounds
    return {
        "messages": {
            f"{message.topic}/{message.publisher}/{message.ordinal}": [
                message.size,
                np.packbits(message.holders()).tobytes().hex(),
            ]
            for message in sorted(recorder.ledger, key=lambda one: (one.topic, one.publisher, one.ordinal))
        },
        "operations": {
            str(operations.numbers[index]): [
                KINDS[operations.kinds[index]],
                operations.nodes[index],
                bool(operations.ok[index]),
                "" if operations.kinds[index] == _FIND else operations.result(index).hex(),
            ]
            for index in sorted(range(len(operations)), key=operations.numbers.__getitem__)
        },
        "rounds": {
            task: {str(one.number): [one.digest.hex(), one.skipped] for one in rounds.of(task)}
            for task in rounds.tasks()
        },
        "finished": {task: sorted(rounds.finished.get(task, {})) for task in rounds.tasks()},
    }


def hash_of(results: dict[str, Any]) -> str:
    """SHA-256 of the results, in hexadecimal."""
    text = json.dumps(results, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
