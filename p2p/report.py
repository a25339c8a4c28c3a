"""What a peer tells the person or program that runs it: one event a line, on stdout.

With `as_json` every line is one JSON object with an "event"; otherwise it is a sentence.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from p2p.address import with_peer

if TYPE_CHECKING:
    from p2p.host import Host

Event = Mapping[str, Any]


class Reporter:
    """Writes events to `out`, each at once and whole."""

    def __init__(self, out: TextIO, *, as_json: bool) -> None:
        self._out = out
        self._as_json = as_json
        self._broken = False

    def __call__(self, event: Event) -> None:
        """Writes `event`. Raises `BrokenPipeError` when nobody reads any more, the first time only."""
        if self._broken:
            return
        line = json.dumps(event, ensure_ascii=False) if self._as_json else describe(event)
        if line is None:
            return
        try:
            self._out.write(line + "\n")
            self._out.flush()
        except BrokenPipeError:
            self._broken = True
            raise


def report_listening(host: Host, report: Callable[[Event], None]) -> None:
    """Reports where `host` can be dialed."""
    addresses = [str(with_peer(address, host.peer_id)) for address in host.addresses()]
    report({"event": "listening", "peer_id": str(host.peer_id), "addrs": addresses})


def describe(event: Event) -> str | None:
    """`event` as a sentence, None for what only a program wants to know."""
    match event["event"]:
        case "listening":
            return "\n".join(f"listening on {address}" for address in event["addrs"])
        case "connected":
            how = "dialed" if event["outbound"] else "accepted"
            return f"connected to {event['peer']} ({how} {event['addr']})"
        case "disconnected":
            return f"disconnected from {event['peer']}"
        case "message":
            text = base64.b64decode(event["data"]).decode("utf-8", "backslashreplace")
            return f"{event['topic']} {event['from']}: {text}"
        case "task":
            reason = event.get("reason")
            return f"task {event['name']}: {event['state']}" + (f" ({reason})" if reason else "")
        case "round":
            return _describe_round(event)
        case "membership":
            what = {"join": "joined", "leave": "left", "eject": "is ejected"}[event["change"]]
            return f"round {event['round']}: {event['peer']} {what}"
        case "evidence":
            return f"round {event['round']}: {event['peer']} voted twice in view {event['view']}"
        case "offence":
            return f"round {event['round']}: {event['peer']} broke the rule {event['rule']}"
        case "objection":
            after = "no number" if event["after"] is None else f"{event['after']:.4f}"
            risen = f"its loss here is {after}, not {event['before']:.4f}"
            return f"round {event['round']}: no vote for the model, {risen}"
        case "mismatch":
            return f"round {event['round']}: {event['peer']} has another model"
        case "phase" | "proposal" | "vote" | "quorum" | "certificate" | "catch_up":
            return None
        case name:
            rest = " ".join(f"{key}={value}" for key, value in event.items() if key != "event")
            return f"{name} {rest}".rstrip()


def _describe_round(event: Event) -> str:
    outcome = "skipped" if event["skipped"] else f"model {event['digest'][:16]}"
    if "sums" in event and not event["skipped"]:
        outcome = f"{event['sums']['result']}, {outcome}"
    accuracy = event.get("accuracy")
    quality = "" if accuracy is None else f", accuracy {accuracy:.4f}"
    return (
        f"round {event['round']}: {outcome} from {len(event['participants'])} peers{quality}"
        f" in {event['seconds']:.2f} s"
    )
