"""A process's part in a training task: the shipped driver, on the node's disk, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from federated.driver import open_task
from federated.errors import DataError, PluginError
from sim.live.compute import ModelledCompute

if TYPE_CHECKING:
    from federated.reports import Report
    from p2p.blobs import Blobs
    from p2p.files import Files
    from p2p.gossipsub import Pubsub
    from p2p.host import Host
    from sim.live.node import Node


async def train(node: Node, host: Host, pubsub: Pubsub, blobs: Blobs, files: Files, name: str) -> None:
    """Takes part in the task `name` until it is cancelled; what comes of it goes to the observer."""
    setup, number = node.rung.setup, node.number
    load = next(load for load in setup.scenario.task if load.name == name)
    manifest, observer = setup.tasks[name], setup.observer

    def report(event: Report) -> None:
        if event["event"] == "round":
            observer.finished_round(
                number,
                name,
                event["round"],
                digest=bytes.fromhex(event["digest"]),
                skipped=event["skipped"],
                participants=len(event["participants"]),
                measured={key: event.get(key) for key in ("accuracy", "loss")},
            )
        elif event["event"] == "task" and event["state"] == "finished":
            observer.finished_task(number, name)
        elif event["event"] == "task" and event.get("reason"):
            observer.waiting(number, event["reason"])

    def compute() -> ModelledCompute:
        return ModelledCompute(number, setup.network, node.rng, load.train_seconds)

    try:
        async with open_task(
            host,
            pubsub,
            blobs,
            manifest,
            node.rung.registry(number),
            None,
            report,
            files=files,
            compute=compute,
            rng=node.rng,
            wall_clock=lambda: setup.network.wall_clock(number),
        ):
            await trio.sleep_forever()
    except (DataError, PluginError) as error:  # as a peer that reports the task as refused, and lives on
        observer.waiting(number, str(error))
