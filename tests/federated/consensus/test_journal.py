"""A journal cut off at any byte: what comes back is a beginning of it, and contradicts nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random

from federated.journal import Journal
from federated.rounds.agreement import Agreement
from federated.rounds.committee import Committee
from federated.rounds.messages import Body, Choice, Propose, Vote
from federated.rounds.wire import decode_entry, encode_entry
from sim.disk import SimDisk
from tests.search.parliament import (
    BASE,
    PERIOD,
    ROUND,
    TASK,
    TIMEOUT,
    Parliament,
    draw_plan,
    members_of,
    sign,
    verify,
)

SIZE = 64  # bytes of a signature on disk


def long_journal() -> tuple[int, int, list[Body]]:
    """(members, whose it is, the entries) of a round that took some views, with signatures that fit."""
    for seed in range(1000):
        house = Parliament(draw_plan(seed, 4))
        house.run()
        chair = max(house.honest, key=lambda item: len(item.journal))
        if len({entry.view for entry in chair.journal if isinstance(entry, Vote)}) > 2:
            return 4, chair.number, chair.journal
    raise AssertionError("no run was long enough")


def fitting(data: bytes) -> bytes:
    """As many bytes as a signature has; enough of them to tell one from another."""
    return (data[-1:] + data)[:SIZE].ljust(SIZE, b"\0")


def on_disk(entry: Body) -> Body:
    if isinstance(entry, Propose):
        return entry
    if isinstance(entry, Vote):
        return replace(entry, signature=fitting(entry.signature))
    return replace(entry, votes=tuple((number, fitting(data)) for number, data in entry.votes))  # type: ignore[union-attr,call-arg]


def restored(count: int, me: int, entries: list[Body]) -> Agreement:
    committee = Committee(TASK, members_of(count), verify)
    machine = Agreement(
        committee=committee,
        me=me,
        round_number=ROUND,
        base=BASE,
        sign=partial(sign, committee.members[me]),
        timeout=TIMEOUT,
        period=PERIOD,
    )
    machine.restore(entries)
    return machine


def test_a_journal_cut_off_at_any_byte_gives_back_a_beginning_of_it() -> None:
    entries = [on_disk(entry) for entry in long_journal()[2][:6]]
    files = SimDisk(Random(0)).mount()
    journal = Journal(files, "journal")
    journal.append([encode_entry(TASK, entry) for entry in entries])
    whole = files.read("journal", 0, 1 << 20)
    lengths = []
    for size in range(len(whole) + 1):
        files.write("journal", whole[:size])
        found = [decode_entry(TASK, record) for record in Journal(files, "journal").records]
        assert found == entries[: len(found)]
        lengths.append(len(found))
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-2], lengths[-1]) == (0, len(entries) - 1, len(entries))


def test_every_beginning_of_a_journal_says_nothing_that_was_said_otherwise() -> None:
    """A vote may be sent as soon as it is written: so what is restored must keep each one."""
    count, me, entries = long_journal()
    cast = {(entry.view, entry.choice): entry.block for entry in entries if isinstance(entry, Vote)}
    for length in range(len(entries) + 1):
        before = entries[:length]
        machine = restored(count, me, before)
        actions = list(machine.start(0.0))
        now = 0.0
        for _ in range(12):  # deadlines pass, nobody says anything
            now = machine.next_deadline() or now
            actions += machine.handle_timer(now)
        said = dict[tuple[int, Choice], bytes]()
        for entry in [*before, *(getattr(action, "body", None) for action in actions)]:
            if isinstance(entry, Vote):
                key = (entry.view, entry.choice)
                assert said.setdefault(key, entry.block) == entry.block
                excluded = {Choice.NULLIFY: Choice.FINALIZE, Choice.FINALIZE: Choice.NULLIFY}
                assert (entry.view, excluded.get(entry.choice)) not in said
        written = [(entry.view, entry.choice) for entry in before if isinstance(entry, Vote)]
        assert all(said[key] == cast[key] for key in written)
        assert machine.view >= max([1, *(view for view, _ in written)])
