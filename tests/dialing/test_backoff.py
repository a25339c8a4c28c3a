from __future__ import annotations

from p2p.address import parse_address
from p2p.dialing.backoff import BACKOFF_ENTRIES, BACKOFF_MAX, Backoff

NOWHERE = parse_address("/memory/999")


def test_backoff_doubles_up_to_a_minute_and_forgets_on_success():
    backoff = Backoff()
    assert backoff.remaining(NOWHERE, 0.0) == 0
    waits = []
    for _ in range(12):
        backoff.failed(NOWHERE, 0.0)
        waits.append(backoff.remaining(NOWHERE, 0.0))
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == BACKOFF_MAX
    assert backoff.remaining(NOWHERE, 59.0) == 1.0
    backoff.succeeded(NOWHERE)
    assert backoff.remaining(NOWHERE, 0.0) == 0


def test_backoff_remembers_a_bounded_number_of_addresses():
    backoff = Backoff()
    addresses = [parse_address(f"/memory/{number}") for number in range(1, BACKOFF_ENTRIES + 2)]
    for address in addresses:
        backoff.failed(address, 0.0)
    assert backoff.remaining(addresses[0], 0.0) == 0
    assert backoff.remaining(addresses[-1], 0.0) > 0
