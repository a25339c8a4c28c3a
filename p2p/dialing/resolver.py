"""From names to IP addresses: which DNS questions to ask, and what their answers make of a multiaddr.

    /dns, /dns4, /dns6 ── A, AAAA ──→ the same address with /ip4 or /ip6 in front
    /dnsaddr ──────────── TXT ──────→ whole multiaddrs, which may hold names again: at most 4 levels

The names of one dial share their bounds, so that no zone of a stranger makes us ask without end.
Source: libp2p/specs addressing/README.md; multiformats/multiaddr protocols/DNSADDR.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address

from multiaddr import Multiaddr

from p2p.address import parse_address, split_peer, with_peer
from p2p.errors import InvalidAddress
from p2p.peer_id import PeerId

MAX_LEVELS = 4  # of /dnsaddr within /dnsaddr; go-multiaddr-dns and go-libp2p's swarm
MAX_QUERIES = 32  # in one dial; js-libp2p follows as many links
MAX_REASONS = 32  # lines; a zone full of broken links is told of once in a while
MAX_RESULTS = 100  # addresses of one dial; go-libp2p's swarm, "maximumResolvedAddresses"
PREFIX = "dnsaddr="  # of a TXT record that holds an address


class Record(Enum):
    """What a question asks for."""

    ANY = "dns"  # IPv4 and IPv6 addresses
    IP4 = "dns4"
    IP6 = "dns6"
    TEXT = "dnsaddr"


KINDS = {record.value: record for record in Record}
VERSIONS = {Record.ANY: (4, 6), Record.IP4: (4,), Record.IP6: (6,)}


@dataclass(frozen=True, slots=True)
class Query:
    """One question: the IP addresses of `name`, or its TXT records."""

    record: Record
    name: str


@dataclass(frozen=True, slots=True)
class _Pending:
    """An address whose name waits for its answer."""

    address: Multiaddr
    origin: Multiaddr  # what the caller asked for, and what the reasons name
    level: int


@lru_cache(4096)
def has_name(address: Multiaddr) -> bool:
    """Whether `address` begins with a name that must be resolved before it is dialed."""
    return str(address).split("/", 2)[1] in KINDS


def with_ip(address: Multiaddr, ip: str) -> Multiaddr:
    """`address` with `ip` in the place of the name in front; the name stays for TLS, as /tls/sni/<name>.

    Raises `InvalidAddress` when `ip` is none.
    """
    _, _, name, *rest = str(address).split("/")
    if "wss" in rest:
        at = rest.index("wss")
        rest[at : at + 1] = ["tls", "ws"]
    if "tls" in rest and "sni" not in rest:
        rest[rest.index("tls") + 1 : rest.index("tls") + 1] = ["sni", name]
    try:
        version = ip_address(ip).version
    except ValueError as exc:
        raise InvalidAddress(f"not an IP address: {ip[:80]!r}") from exc
    return parse_address("/".join(["", f"ip{version}", ip, *rest]))


class Resolution:
    """Resolves the names of one dial to `peer`.

    Ask every query of `queries()` and give each an answer or a failure, until `done`; what was found
    meanwhile comes from `take()`. `reasons` has a line for each address that led nowhere.
    """

    def __init__(self, addresses: Iterable[Multiaddr], peer: PeerId | None = None) -> None:
        self._peer = peer
        self._seen: set[Multiaddr] = set()
        self._new: list[Query] = []
        self._waiting: dict[Query, list[_Pending]] = {}
        self._answers: dict[Query, Sequence[str]] = {}
        self._failures: dict[Query, str] = {}
        self._found: list[Multiaddr] = []
        self._num_found = 0
        self.reasons: list[str] = []
        for address in addresses:
            self._enter(_Pending(address, address, 0))

    @property
    def done(self) -> bool:
        """Whether no answer is awaited any more."""
        return not self._waiting

    def queries(self) -> list[Query]:
        """The questions to ask now; each is handed out once."""
        queries, self._new = self._new, []
        return queries

    def take(self) -> list[Multiaddr]:
        """The addresses found since the last call, without names; a final /p2p/ stays."""
        found, self._found = self._found, []
        return found

    def handle_answer(self, query: Query, values: Sequence[str]) -> None:
        """`values` are IP addresses, or the texts of TXT records, in the order of the answer."""
        self._answers[query] = values
        for pending in self._waiting.pop(query, []):
            self._resolve(query, pending, values)

    def handle_failure(self, query: Query, reason: str) -> None:
        """The question has no answer; `reason` is for people."""
        self._failures[query] = reason
        for pending in self._waiting.pop(query, []):
            self._tell(pending, reason)

    def handle_deadline(self) -> None:
        """Nothing more will be answered: what still waits gets its reason."""
        for query in list(self._waiting):
            self.handle_failure(query, f"no answer about {query.name}")

    def _enter(self, pending: _Pending) -> None:
        """Puts an address where it belongs: among the found, into the queue of a query, or nowhere."""
        address = pending.address
        if address in self._seen:  # a loop, or the same record twice
            return
        self._seen.add(address)
        _, kind, name, *_ = [*str(address).split("/", 3), "", ""]
        record = KINDS.get(kind)
        if record is None:
            if self._num_found < MAX_RESULTS:
                self._num_found += 1
                self._found.append(address)
        elif record is Record.TEXT and pending.level >= MAX_LEVELS:
            self._tell(pending, f"more than {MAX_LEVELS} levels of /dnsaddr")
        else:
            self._ask(Query(record, f"_dnsaddr.{name}" if record is Record.TEXT else name), pending)

    def _ask(self, query: Query, pending: _Pending) -> None:
        if query in self._answers:
            self._resolve(query, pending, self._answers[query])
        elif query in self._failures:
            self._tell(pending, self._failures[query])
        elif query in self._waiting:
            self._waiting[query].append(pending)
        elif len(self._answers) + len(self._failures) + len(self._waiting) < MAX_QUERIES:
            self._waiting[query] = [pending]
            self._new.append(query)
        else:
            self._tell(pending, f"more than {MAX_QUERIES} DNS queries")

    def _resolve(self, query: Query, pending: _Pending, values: Sequence[str]) -> None:
        if query.record is Record.TEXT:
            if not self._read_texts(pending, values):
                self._tell(pending, f"{query.name} has no address of this peer")
        elif not self._read_ips(query.record, pending, values):
            self._tell(pending, f"{query.name} has no such address")

    def _read_ips(self, record: Record, pending: _Pending, values: Sequence[str]) -> int:
        """How many of `values` are of use."""
        num_useful = 0
        for ip in values:
            try:
                address = with_ip(pending.address, ip)
            except InvalidAddress:  # a zone (fe80::1%eth0): it means something on one link only
                continue
            if ip_address(ip).version in VERSIONS[record]:
                num_useful += 1
                self._enter(_Pending(address, pending.origin, pending.level))
        return num_useful

    def _read_texts(self, pending: _Pending, values: Sequence[str]) -> int:
        """How many of `values` are of use."""
        asked = _peer_of(pending.address)
        wanted = asked or self._peer
        num_useful = 0
        for text in values:
            try:
                address = parse_address(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else None
                named = split_peer(address)[1] if address is not None else None
            except InvalidAddress:  # somebody else's mistake, or a relay: it costs itself
                continue
            if address is None:  # a record about something else
                continue
            if asked is not None and named is None and str(address).startswith("/dnsaddr/"):
                address, named = with_peer(address, asked), asked  # further down it is still this peer's
            if named == wanted or wanted is None or (named is None and asked is None):
                num_useful += 1
                self._enter(_Pending(address, pending.origin, pending.level + 1))
        return num_useful

    def _tell(self, pending: _Pending, reason: str) -> None:
        if len(self.reasons) < MAX_REASONS:
            self.reasons.append(f"{pending.origin}: {reason}")


def _peer_of(address: Multiaddr) -> PeerId | None:
    try:
        return split_peer(address)[1]
    except InvalidAddress:
        return None
