"""Asks the system and the DNS: host names through getaddrinfo, TXT records through dnspython.

getaddrinfo knows what people configured (/etc/hosts, localhost, search domains), but no TXT records.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import trio
from multiaddr import Multiaddr

from p2p.dialing.resolver import Query, Record, Resolution
from p2p.errors import ConnectionLost

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

QUERY_LIFETIME = 5.0  # seconds for one TXT question, retries included; dnspython's default
FAMILIES = {Record.ANY: socket.AF_UNSPEC, Record.IP4: socket.AF_INET, Record.IP6: socket.AF_INET6}


class Lookup(Protocol):
    """Where the answers of `Resolution` come from. The caller sets the deadline."""

    async def ask(self, query: Query) -> Sequence[str]:
        """IP addresses, or the text of each TXT record. Raises `ConnectionLost` with the reason."""


class SystemLookup:
    """The names of this system and of the DNS that it is configured with."""

    def __init__(self) -> None:
        self._resolver: Resolver | None = None

    async def ask(self, query: Query) -> list[str]:
        """The answer to `query`. Raises `ConnectionLost` with the reason."""
        if query.record is Record.TEXT:
            return await self._texts(query.name)
        try:
            found = await trio.socket.getaddrinfo(
                query.name, None, family=FAMILIES[query.record], type=socket.SOCK_STREAM
            )
        except OSError as exc:
            raise ConnectionLost(f"cannot resolve {query.name}: {exc.strerror or exc}") from exc
        except UnicodeError as exc:  # the IDNA encoding of a name that is none
            raise ConnectionLost(f"cannot resolve {query.name}: not a host name") from exc
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))

    async def _texts(self, name: str) -> list[str]:
        # imported here: 50 ms and 6 MB that most hosts never need
        import dns.asyncbackend
        import dns.asyncresolver
        import dns.exception

        try:
            if self._resolver is None:
                self._resolver = dns.asyncresolver.Resolver()
            answer = await self._resolver.resolve(
                name, "TXT", lifetime=QUERY_LIFETIME, backend=dns.asyncbackend.get_backend("trio")
            )
        except (dns.exception.DNSException, OSError) as exc:
            raise ConnectionLost(f"cannot resolve {name}: {exc}") from exc
        return [b"".join(record.strings).decode("utf-8", "replace") for record in answer]


async def resolve(
    resolution: Resolution, lookup: Lookup, found: Callable[[Sequence[Multiaddr]], None]
) -> None:
    """Asks everything that `resolution` wants to know, at once; `found` gets addresses as they come."""

    async def ask(query: Query) -> None:
        try:
            values = await lookup.ask(query)
        except ConnectionLost as exc:
            resolution.handle_failure(query, str(exc))
        else:
            resolution.handle_answer(query, values)
        go_on()

    def go_on() -> None:
        for query in resolution.queries():
            nursery.start_soon(ask, query)
        if addresses := resolution.take():
            found(addresses)

    async with trio.open_nursery() as nursery:
        go_on()
