"""One list for all members: each hears all others, in one order, once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from federated.local.log import Log, Reader
from federated.rounds.events import MessageReceived
from federated.rounds.messages import Hello
from tests.federated.lab import peer_number

PEERS = [peer_number(number) for number in range(1, 4)]


def message(sender: int, number: int) -> MessageReceived:
    return MessageReceived(sender=PEERS[sender], body=Hello(round=number + 1, base=bytes(32)))


@given(st.lists(st.tuples(st.sampled_from(["say", "take"]), st.integers(0, 2))))
def test_each_hears_what_others_say_in_one_order(steps: list[tuple[str, int]]) -> None:
    log = Log()
    readers = [Reader(log, peer) for peer in PEERS]
    said, heard = list[MessageReceived](), [list[MessageReceived]() for _ in PEERS]
    for what, who in steps:
        if what == "say":
            said.append(message(who, len(said)))
            log.add(said[-1])
        else:
            heard[who] += readers[who].take()
    for who, reader in enumerate(readers):
        heard[who] += reader.take()
        assert heard[who] == [each for each in said if each.sender != PEERS[who]]
        assert reader.take() == []


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 4))
def test_who_reads_too_late_has_missed_the_oldest_and_nothing_else(steps: list[bool], kept: int) -> None:
    log = Log(kept)
    reader, said, before = Reader(log, PEERS[0]), 0, 0
    for takes in steps:
        if takes:
            numbers = [each.body.round for each in reader.take()]
            assert numbers == list(range(said - len(numbers) + 1, said + 1))
            assert min(kept, said - before) <= len(numbers) <= min(2 * kept, said - before)
            before = said
        else:
            log.add(message(1, said))
            said += 1
        assert log.end == said
