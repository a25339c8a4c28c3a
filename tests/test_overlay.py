"""Two whole peers in one process, on TCP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from p2p.address import parse_address, with_peer
from p2p.config import HostConfig
from p2p.errors import DialFailed, P2PError
from p2p.gossipsub.router import Router
from p2p.host import open_host
from p2p.kad import InvalidRecord
from p2p.overlay import Overlay, open_overlay
from tests.support import key_number

LISTEN = [parse_address("/ip4/127.0.0.1/tcp/0")]
KEY, VALUE = b"/shout/it", b"HELLO"


class Shouted:
    """Values are in capitals."""

    def validate(self, key: bytes, value: bytes) -> None:
        if value != value.upper():
            raise InvalidRecord("somebody whispers")

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        return 0


@asynccontextmanager
async def open_pair(folder: Path, **options: Any) -> AsyncIterator[tuple[Overlay, Overlay]]:
    """Two overlays with these options; the second one knows the address of the first, and both have met."""
    first_key, second_key = key_number(1), key_number(2)
    for name in ("one", "two"):
        (folder / name).mkdir()
    with trio.fail_after(150):
        async with open_overlay(first_key, folder / "one", listen=LISTEN, **options) as one:
            bootstrap = [with_peer(one.host.addresses()[0], one.host.peer_id)]
            opening = partial(open_overlay, bootstrap=bootstrap, **options)
            async with opening(second_key, folder / "two", listen=LISTEN) as two:
                with one.host.events() as events:
                    while two.host.peer_id not in one.host.peers():
                        await anext(aiter(events))
                yield one, two


async def test_two_peers_talk_and_share_content(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (one, two):
        with one.pubsub.subscribe("t") as subscription:
            await two.pubsub.wait_for_peers("t", 1)
            two.pubsub.publish("t", b"hello")
            message = await anext(aiter(subscription))
        assert (message.sender, message.data) == (two.host.peer_id, b"hello")
        root = await one.blobs.put(b"content")
        assert await two.blobs.fetch(root, 7, [one.host.peer_id]) == b"content"
    assert (tmp_path / "one" / "blobs" / root.hex()).exists()
    assert (tmp_path / "two" / "peers.sqlite").exists()


async def test_namespaces_beside_the_default_ones_are_served(tmp_path: Path) -> None:
    async with open_pair(tmp_path, validators={"shout": Shouted()}, remembers=False) as (one, two):
        while await two.kad.put_value(KEY, VALUE) < 1:  # until the other is in the table
            await trio.lowlevel.checkpoint()
        assert await one.kad.get_value(KEY) == VALUE
        with pytest.raises(InvalidRecord, match="whispers"):
            await one.kad.put_value(KEY, b"hello")
        with pytest.raises(P2PError):
            await one.kad.put_value(b"/other/it", VALUE)
    assert not (tmp_path / "two" / "peers.sqlite").exists()


async def test_the_security_and_the_router_are_as_told(tmp_path: Path) -> None:
    made: list[Router] = []

    def make_router(*arguments: Any, **options: Any) -> Router:
        made.append(Router(*arguments, **options))
        return made[-1]

    noise_only = open_host(config=HostConfig(security=("noise",)))
    options: dict[str, Any] = {"security": ["tls", "tls"], "make_router": make_router}
    async with open_pair(tmp_path, **options) as (one, _), noise_only as stranger:
        assert len(made) == 2
        with pytest.raises(DialFailed):
            await stranger.connect(one.host.peer_id, one.host.addresses())
