"""Our program for libp2p's transport test: `python -m tests.interop.transport`, all by environment.

The harness starts a listener and a dialer. They meet through a list in redis: the listener appends its
address there, the dialer takes it, connects, pings, and prints how long that took.

| now | before | |
|---|---|---|
| `IS_DIALER` | `is_dialer` | true or false |
| `REDIS_ADDR` | `redis_addr` | host:port |
| `TEST_KEY` | | prefix of the list's name; before, it was always `listenerAddr` |
| `TRANSPORT` | `transport` | tcp or ws |
| `SECURE_CHANNEL` | `security` | noise or tls |
| `MUXER` | `muxer` | yamux |
| `LISTENER_IP` | `ip` | what the listener binds |
| `TEST_TIMEOUT_SECS` | `test_timeout_seconds` | seconds for everything, 180 when not given |
| `DEBUG` | | true: log to stderr |

Stdout carries the result alone: YAML now, a line of JSON before. The exit status says whether it worked.
Source: libp2p/unified-testing docs/write-a-transport-test-app.md, and libp2p/test-plans
transport-interop/README.md for what was before.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

import trio
from multiaddr import Multiaddr

from p2p.address import parse_address, split_peer, with_peer
from p2p.config import HostConfig
from p2p.errors import P2PError
from p2p.host import Host, open_host
from tests.interop.resp import Redis, RedisError

SUFFIXES = {"tcp": "", "ws": "/ws"}
SECURITIES = ("noise", "tls")
MUXERS = ("yamux",)
TIMEOUT = 180.0  # seconds; both harnesses' default
MILLISECONDS = 1000.0


class Unusable(Exception):
    """The environment asks for what we do not speak, or leaves something out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the harness asks for."""

    dialer: bool
    redis: tuple[str, int]
    key: str
    """The name of the list in redis."""
    transport: str
    security: str
    ip: str
    timeout: float
    """Seconds."""
    legacy: bool
    """Whether the names, the list and the output are those of before."""
    debug: bool = False


_NAMES = {
    "dialer": "IS_DIALER",
    "redis": "REDIS_ADDR",
    "transport": "TRANSPORT",
    "security": "SECURE_CHANNEL",
    "muxer": "MUXER",
    "ip": "LISTENER_IP",
    "timeout": "TEST_TIMEOUT_SECS",
}
_NAMES_BEFORE = {
    "dialer": "is_dialer",
    "redis": "redis_addr",
    "transport": "transport",
    "security": "security",
    "muxer": "muxer",
    "ip": "ip",
    "timeout": "test_timeout_seconds",
}


def settings_of(environ: Mapping[str, str]) -> Settings:
    """What `environ` asks for, in today's names or those of before. Raises `Unusable`."""
    legacy = "IS_DIALER" not in environ
    names = _NAMES_BEFORE if legacy else _NAMES
    found = {name: environ.get(variable, "") for name, variable in names.items()}
    host, _, port = (found["redis"] or "redis:6379").rpartition(":")
    if not port.isdigit():
        raise Unusable(f"{names['redis']}={found['redis']}: write host:port")
    if not legacy and not environ.get("TEST_KEY"):
        raise Unusable("TEST_KEY is not set")
    timeout = found["timeout"] or f"{TIMEOUT:g}"
    if not timeout.isdigit():
        raise Unusable(f"{names['timeout']}={timeout}: write whole seconds")
    _one_of(names["muxer"], found["muxer"], MUXERS)
    return Settings(
        dialer=_one_of(names["dialer"], found["dialer"], ("true", "false")) == "true",
        redis=(host, int(port)),
        key="listenerAddr" if legacy else f"{environ['TEST_KEY']}_listener_multiaddr",
        transport=_one_of(names["transport"], found["transport"], tuple(SUFFIXES)),
        security=_one_of(names["security"], found["security"], SECURITIES),
        ip=found["ip"] or "0.0.0.0",
        timeout=float(timeout),
        legacy=legacy,
        debug=environ.get("DEBUG") == "true",
    )


def _one_of(variable: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise Unusable(f"{variable}={value}: we speak {' and '.join(choices)}")
    return value


def report(settings: Settings, handshake_plus_one: float, ping: float) -> str:
    """What the dialer prints, from two durations in seconds."""
    both, one = round(handshake_plus_one * MILLISECONDS, 3), round(ping * MILLISECONDS, 3)
    if settings.legacy:
        return json.dumps({"handshakePlusOneRTTMillis": both, "pingRTTMilllis": one})  # three l, as agreed on
    return f"latency:\n  handshake_plus_one_rtt: {both}\n  ping_rtt: {one}\n  unit: ms"


def address_for_others(addresses: list[Multiaddr]) -> Multiaddr:
    """The one of our /ip4 and /ip6 addresses under which another machine finds us, if there is one."""

    def usefulness(address: Multiaddr) -> tuple[bool, bool]:
        ip = ip_address(str(address).split("/")[2])
        return (not ip.is_loopback, ip.version == 4)

    return max(addresses, key=usefulness)


async def listen(settings: Settings, host: Host, redis: Redis) -> None:
    """Tells the dialer where we are, then answers until the harness ends us."""
    await host.listen(parse_address(f"/ip4/{settings.ip}/tcp/0{SUFFIXES[settings.transport]}"))
    address = with_peer(address_for_others(host.addresses()), host.peer_id)
    await redis.command("DEL", settings.key)  # what an earlier run left there
    await redis.command("RPUSH", settings.key, str(address))
    await trio.sleep_forever()


async def dial(settings: Settings, host: Host, redis: Redis) -> None:
    """Waits for the listener's address, connects, pings twice, prints the result."""
    answer = await redis.command("BLPOP", settings.key, f"{settings.timeout:g}")
    match answer:
        case [bytes(), bytes(text)]:
            address, peer = split_peer(parse_address(text.decode()))
        case _:
            raise Unusable(f"no listener within {settings.timeout:g} s")
    if address is None or peer is None:
        raise Unusable(f"the listener's address is {text.decode()}: it names no peer")
    start = trio.current_time()
    await host.connect(peer, [address])
    await host.ping(peer)
    handshake_plus_one = trio.current_time() - start
    print(report(settings, handshake_plus_one, await host.ping(peer)), flush=True)


async def run(settings: Settings) -> None:
    """Plays one part of the test. Raises `P2PError`, `RedisError`, `OSError`, `trio.TooSlowError`."""
    part = dial if settings.dialer else listen
    with trio.fail_after(settings.timeout):
        async with (
            await trio.open_tcp_stream(*settings.redis) as stream,
            open_host(config=HostConfig(security=(settings.security,))) as host,
        ):
            await part(settings, host, Redis(stream))


def main() -> int:
    """The exit status: 0 when it worked."""
    try:
        settings = settings_of(os.environ)
        if settings.debug:
            logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
        trio.run(run, settings)
    except (Unusable, P2PError, RedisError, OSError, trio.TooSlowError) as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
