"""The overlay as one peer runs it: a host with peerstore, pubsub, DHT and blobs, joined to the network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from multiaddr import Multiaddr

from p2p.blobs import Blobs, BlobStore, open_blobs
from p2p.config import SECURITY, HostConfig
from p2p.discovery import open_discovery
from p2p.files import FolderFiles
from p2p.gossipsub import Pubsub, open_gossipsub
from p2p.gossipsub.router import Router
from p2p.host import Host, open_host
from p2p.kad import DEFAULT_VALIDATORS, Kad, Validator, open_kad
from p2p.keys import KeyPair
from p2p.persistence import open_peerstore_file
from p2p.transport import TcpTransport, WebSocketTransport

if TYPE_CHECKING:
    import ssl

    from p2p.pnet import PreSharedKey

BLOB_CAPACITY = 4 << 30  # bytes of content kept for others


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """What services use of a peer."""

    host: Host
    pubsub: Pubsub
    kad: Kad
    blobs: Blobs


@asynccontextmanager
async def open_overlay(
    key: KeyPair,
    data_dir: Path,
    *,
    listen: Sequence[Multiaddr],
    bootstrap: Sequence[Multiaddr] = (),
    security: Sequence[str] = SECURITY,
    psk: PreSharedKey | None = None,
    ws_context: ssl.SSLContext | None = None,
    remembers: bool = True,
    validators: Mapping[str, Validator] | None = None,
    make_router: Callable[..., Router] = Router,
) -> AsyncIterator[Overlay]:
    """Everything that a peer consists of, listening and joining the network while the body runs.

    `remembers` keeps the addresses of others in `data_dir`; `validators` are namespaces of DHT records beside
    the default ones; `make_router` is as in `open_gossipsub`.
    """
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(
            open_host(
                key=key,
                psk=psk,
                transports=[TcpTransport(), WebSocketTransport(server_context=ws_context)],
                config=HostConfig(security=tuple(dict.fromkeys(security))),
            )
        )
        if remembers:
            await stack.enter_async_context(open_peerstore_file(host, data_dir / "peers.sqlite"))
        pubsub = await stack.enter_async_context(open_gossipsub(host, make_router=make_router))
        kad = await stack.enter_async_context(
            open_kad(host, validators={**DEFAULT_VALIDATORS, **(validators or {})})
        )
        blobs = await stack.enter_async_context(
            open_blobs(host, BlobStore(FolderFiles(data_dir / "blobs"), BLOB_CAPACITY))
        )
        for address in listen:
            await host.listen(address)
        await stack.enter_async_context(open_discovery(host, kad, bootstrap))
        yield Overlay(host=host, pubsub=pubsub, kad=kad, blobs=blobs)
