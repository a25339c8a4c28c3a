"""A peer that ends itself with SIGKILL: `python -m tests.search.deadly_peer MOMENT [arguments of p2p.peer]`.

Before its MOMENT-th change of a file of a task, or message on a task's topic, counted from 0, the process
is gone, as with kill -9 from outside. A MOMENT of -1 never comes.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path

from p2p import files
from p2p.gossipsub import Pubsub
from tests.search.deadly import DeadlyFiles


class Death:
    """Counts the moments, and kills at one of them."""

    def __init__(self, moment: int) -> None:
        self._left = moment

    def tick(self, what: str) -> None:
        """One more moment."""
        if self._left == 0:
            sys.stderr.write(f"killed before: {what}\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


def arm(death: Death) -> None:
    """From now on the files of tasks and what is published on their topics count."""
    sub, publish = files.FolderFiles.sub, Pubsub.publish

    def deadly_sub(folder: files.FolderFiles, name: str) -> object:
        found = sub(folder, name)
        return DeadlyFiles(found, death.tick) if name == "tasks" else found

    def deadly_publish(pubsub: Pubsub, topic: str, data: bytes) -> bytes:
        if topic.startswith("/atcp/task/"):
            death.tick("publish")
        return publish(pubsub, topic, data)

    files.FolderFiles.sub = deadly_sub  # type: ignore[assignment,method-assign]
    Pubsub.publish = deadly_publish  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(Death(int(sys.argv[1])))
    sys.argv = [str(Path(files.__file__).parent / "peer.py"), *sys.argv[2:]]
    runpy.run_module("p2p.peer", run_name="__main__", alter_sys=True)
