"""What loss and outages cost on a connection: the time until TCP sends again."""

from __future__ import annotations

from collections.abc import Callable

RETRANSMIT = 0.2  # seconds until a lost packet is sent again; Linux, TCP_RTO_MIN
MAX_LOSSES = 6  # of one message in a row; the wait doubles each time (RFC 6298, 5.5)
LONGEST_WAIT = 3.2  # seconds between two attempts in an outage; TCP's limit is minutes, a person's is not
SEGMENT = 1460  # bytes of a message in one packet: Ethernet's 1500 less the headers of IP and TCP


def wait_by_loss(loss: float, size: int, random: Callable[[], float]) -> float:
    """Seconds by which a message of `size` bytes is late when each packet is lost with probability `loss`.

    The first time all packets of the message are at risk, then the one that is sent again.
    """
    if not loss:
        return 0.0
    waited, wait = 0.0, RETRANSMIT
    passing = (1.0 - loss) ** max(1, -(-size // SEGMENT))
    for _ in range(MAX_LOSSES):
        if random() < passing:
            break
        waited += wait
        wait *= 2
        passing = 1.0 - loss
    return waited


def wait_after_outage(lasted: float) -> float:
    """Seconds after its end until the sender, who has tried again with growing waits, tries the next time."""
    tried, wait = 0.0, RETRANSMIT
    while tried < lasted:
        if wait >= LONGEST_WAIT:
            return LONGEST_WAIT - (lasted - tried) % LONGEST_WAIT
        tried += wait
        wait *= 2
    return tried - lasted
