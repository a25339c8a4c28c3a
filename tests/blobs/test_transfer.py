from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.blobs import merkle
from p2p.blobs.holder import CHUNK_TIMEOUT, FIRST_WINDOW, MAX_WINDOW, POLL_INTERVAL
from p2p.blobs.merkle import PartialTree
from p2p.blobs.picking import Budget, by_rarity, pick
from p2p.blobs.transfer import (
    HEDGE,
    HEDGED,
    MAX_ACTIVE,
    MAX_HOLDERS,
    STALL_TIMEOUT,
    Action,
    Answered,
    Ask,
    Begin,
    Complete,
    Failed,
    GiveUp,
    HoldersFound,
    Leave,
    Save,
    Saved,
    SearchEnded,
    Transfer,
)
from p2p.blobs.wire import Absent, Answer, Chunk, Haves, Lacking, Want
from p2p.peer_id import PeerId
from tests.blobs.network import (
    LATENCY,
    Content,
    Fetcher,
    Gone,
    HangsUp,
    HasNothing,
    Holder,
    Liar,
    Network,
    SendsOthers,
    Silent,
    Slow,
    Stops,
    TakesBack,
    Talks,
)
from tests.blobs.support import PEERS, blob

A, B, C = PEERS[:3]
US = PEERS[-1]
SMALL_CHUNK = 8  # bytes: what is tested here does not depend on it


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merkle, "CHUNK_SIZE", SMALL_CHUNK)


def content(chunks: int) -> Content:
    return Content(blob(SMALL_CHUNK * chunks - 3))


def transfer_of(of: Content, holders: list[PeerId], have: int = 0) -> Transfer:
    tree = PartialTree(of.root, len(of.chunks))
    return Transfer(of.root, of.size, tree, have, holders, start=0, budget=Budget(96, 2))


def started(of: Content, *holders: PeerId) -> tuple[Transfer, list[Action]]:
    transfer = transfer_of(of, list(holders))
    return transfer, transfer.handle(Begin(), 0.0)


def ask(of: Content, holder: PeerId, *indexes: int) -> Ask:
    return Ask(holder=holder, want=Want(root=of.root, size=of.size, indexes=indexes))


def save(of: Content, index: int) -> Save:
    return Save(index=index, pieces=(of.chunks[index],))


def fetch(holders: dict[PeerId, Holder], of: Content, **more: object) -> tuple[Fetcher, Network]:
    """A fetch from these holders, run to its end."""
    network = Network(dict(holders))
    fetcher = Fetcher(peer=US, content=of, holders=list(holders), **more)  # type: ignore[arg-type]
    network.add(fetcher)
    network.run([fetcher])
    return fetcher, network


# One holder


def test_a_holder_with_all_chunks_completes_the_fetch() -> None:
    of = content(3)
    transfer, actions = started(of, A)
    assert actions == [ask(of, A, 0, 1, 2)]
    for index in (2, 0, 1):  # in any order
        assert transfer.handle(Answered(holder=A, answer=of.chunk(index)), 1.0) == [save(of, index)]
    assert transfer.whole
    assert transfer.next_deadline is None
    assert transfer.handle_timer(1000.0) == []
    assert transfer.handle(Saved(count=2), 1.0) == []
    assert transfer.handle(Saved(count=1), 1.0) == [Complete()]
    assert transfer.is_idle(A)
    assert transfer.handle(HoldersFound(holders=(B,)), 2.0) == []


def test_what_is_here_already_is_not_asked_for() -> None:
    of = content(5)
    fetcher, _ = fetch({A: Holder(of)}, of, have=0b01101)
    assert sorted(fetcher.saved) == [1, 4]
    assert fetcher.asked == 2
    transfer = transfer_of(of, [A], have=of.everything)
    assert transfer.handle(Begin(), 0.0) == [Complete()]


def test_a_fast_holder_is_asked_for_more_and_more_at_once_and_a_slow_one_for_less() -> None:
    of = content(400)
    fast, network = fetch({A: Holder(of)}, of)
    assert isinstance(fast.end, Complete)
    assert MAX_WINDOW <= fast.most_open <= MAX_WINDOW + 1  # one that is not saved yet
    assert fast.asked == 400
    assert network.holders[A].wants < 60  # not one for each chunk
    assert network.now < 400 * 0.01 + 4 * LATENCY + 0.1  # the channel was never empty for long
    of = content(30)
    slow, network = fetch({A: Slow(of)}, of)
    assert slow.most_open == FIRST_WINDOW
    assert network.now == pytest.approx(30 * Slow.delay, abs=10)


def test_chunks_are_asked_from_the_start_on_and_then_from_the_first() -> None:
    of = content(6)
    tree = PartialTree(of.root, 6)
    transfer = Transfer(of.root, of.size, tree, 0, [A], start=4, budget=Budget(96, 2))
    assert transfer.handle(Begin(), 0.0) == [ask(of, A, 4, 5, 0, 1)]


LIES: list[tuple[str, Answer]] = [
    ("does not have it", Absent()),
    ("another chunk", Chunk(index=3, proof=(), pieces=(b"x" * SMALL_CHUNK,))),
    ("another chunk", Chunk(index=-1, proof=(), pieces=(b"x" * SMALL_CHUNK,))),
    ("another chunk", Chunk(index=1, proof=(), pieces=(b"short",))),
    ("another chunk", Chunk(index=2, proof=(), pieces=(b"x" * SMALL_CHUNK,))),  # the last one is shorter
    ("a false chunk 1", Chunk(index=1, proof=(), pieces=(b"x" * SMALL_CHUNK,))),
    ("took chunk 7 back", Lacking(index=7)),
    ("nonsense", Haves(chunks=0b1000)),
]


@pytest.mark.parametrize(("reason", "lie"), LIES)
def test_a_lie_costs_the_holder_its_requests_and_the_next_one_gets_them(reason: str, lie: Answer) -> None:
    of = content(3)
    transfer, _ = started(of, A, B)
    transfer.handle(Answered(holder=A, answer=of.chunk(0)), 0.10)
    leave, asked = transfer.handle(Answered(holder=A, answer=lie), 0.20)
    assert isinstance(leave, Leave)
    assert leave.holder == A
    assert reason in leave.reason
    assert asked == ask(of, B, 1, 2)
    assert transfer.handle(Answered(holder=A, answer=of.chunk(1)), 0.21) == []  # too late
    assert transfer.handle(Failed(holder=A, reason="reset"), 0.22) == []
    assert transfer.handle(HoldersFound(holders=(A,)), 0.23) == []  # it had its chance
    assert transfer.handle(Answered(holder=B, answer=of.chunk(2)), 0.30) == [save(of, 2)]


def test_true_bytes_with_the_proof_of_another_chunk_are_false() -> None:
    of = content(4)
    transfer, _ = started(of, A)
    false = Chunk(index=1, proof=of.tree.proof(2), pieces=(of.chunks[1],))
    leave, end = transfer.handle(Answered(holder=A, answer=false), 1.0)
    assert isinstance(leave, Leave)
    assert end == GiveUp(reasons=(f"{A.short} sent a false chunk 1",))


def test_a_holder_has_one_deadline_for_every_chunk() -> None:
    of = content(3)
    transfer, _ = started(of, A)
    assert transfer.next_deadline == CHUNK_TIMEOUT
    transfer.handle(Answered(holder=A, answer=of.chunk(0)), 4.0)
    assert transfer.next_deadline == 4.0 + CHUNK_TIMEOUT
    assert transfer.handle_timer(3.9 + CHUNK_TIMEOUT) == []
    leave, end = transfer.handle_timer(4.0 + CHUNK_TIMEOUT)
    assert isinstance(leave, Leave)
    assert end == GiveUp(reasons=(f"{A.short} sent nothing of use within 5 s",))


# Several holders


def test_a_large_blob_is_asked_of_several_holders_at_once() -> None:
    of = content(12)
    _, actions = started(of, A, B, C)
    assert actions == [ask(of, A, 0, 1, 2, 3), ask(of, B, 4, 5, 6, 7), ask(of, C, 8, 9, 10, 11)]


def test_a_small_blob_is_asked_of_the_first_and_of_the_next_when_that_one_is_late() -> None:
    of = content(1)
    transfer, actions = started(of, A, B, C)
    assert actions == [ask(of, A, 0)]
    assert transfer.next_deadline == HEDGE
    assert transfer.handle_timer(HEDGE) == [ask(of, B, 0)]
    assert transfer.handle_timer(2 * HEDGE) == [ask(of, C, 0)]
    assert transfer.next_deadline == CHUNK_TIMEOUT  # three were asked: that is enough
    assert transfer.handle(Answered(holder=B, answer=of.chunk(0)), 2.5) == [save(of, 0)]
    assert transfer.handle(Answered(holder=A, answer=of.chunk(0)), 2.6) == []
    assert transfer.handle(Saved(count=1), 2.7) == [Complete()]
    assert not transfer.is_idle(C)  # its copy is still on the way


def test_so_many_holders_are_asked_at_once_and_no_more() -> None:
    of = content(100)
    transfer, actions = started(of, *PEERS)
    assert [action.holder for action in actions if isinstance(action, Ask)] == PEERS[:MAX_ACTIVE]
    actions = transfer.handle(Failed(holder=A, reason="failed"), 0.1)
    assert actions[1] == ask(of, PEERS[MAX_ACTIVE], 0, 1, 2, 3)


def test_without_a_holder_left_the_fetch_ends_with_every_reason() -> None:
    of = content(3)
    transfer, _ = started(of, A, B, A, C)
    transfer.handle(Failed(holder=A, reason="was not reached"), 1.0)
    transfer.handle(Answered(holder=B, answer=Absent()), 2.0)
    _, end = transfer.handle_timer(2.0 + CHUNK_TIMEOUT)
    assert end == GiveUp(
        reasons=(
            f"{A.short} was not reached",
            f"{B.short} does not have it",
            f"{C.short} sent nothing of use within 5 s",
        )
    )
    assert transfer.next_deadline is None
    assert transfer.handle_timer(100.0) == []


def test_a_fetch_without_holders_gives_up_at_once_unless_some_may_be_found() -> None:
    of = content(2)
    assert started(of)[1] == [GiveUp(reasons=())]
    transfer = transfer_of(of, [])
    assert transfer.handle(Begin(searching=True), 0.0) == []
    assert transfer.next_deadline is None
    assert transfer.handle(HoldersFound(holders=(A, A)), 1.0) == [ask(of, A, 0, 1)]
    leave, *rest = transfer.handle(Failed(holder=A, reason="failed"), 2.0)
    assert isinstance(leave, Leave)
    assert rest == []
    assert transfer.handle(SearchEnded(), 3.0) == [GiveUp(reasons=(f"{A.short} failed",))]


def test_the_number_of_holders_tried_is_bounded() -> None:
    of = content(2)
    transfer, _ = started(of, *PEERS)
    for peer in PEERS[:MAX_HOLDERS]:
        *_, last = transfer.handle(Failed(holder=peer, reason="failed"), 0.0)
    assert isinstance(last, GiveUp)
    assert len(last.reasons) == MAX_HOLDERS


def test_two_holders_take_half_the_time_of_one() -> None:
    of = content(400)
    _, one = fetch({A: Holder(of)}, of)
    fetcher, two = fetch({A: Holder(of), B: Holder(of)}, of)
    assert two.now < 0.55 * one.now
    assert fetcher.asked <= 400 + 2  # hardly anything twice


@pytest.mark.parametrize(
    "bad", [Silent, Gone, HangsUp, Stops, Liar, TakesBack, Talks, SendsOthers, HasNothing]
)
def test_a_bad_holder_costs_a_second_at_most_beside_a_good_one(bad: type[Holder]) -> None:
    of = content(60)
    _, alone = fetch({A: Holder(of)}, of)
    fetcher, network = fetch({B: bad(of), A: Holder(of)}, of)
    assert isinstance(fetcher.end, Complete)
    assert network.now <= alone.now + HEDGE + 0.5
    assert A not in fetcher.left


def test_a_slow_holder_keeps_the_last_chunks_for_a_second_only() -> None:
    of = content(60)
    fetcher, network = fetch({A: Slow(of), B: Holder(of)}, of)
    assert isinstance(fetcher.end, Complete)
    assert network.now < 3 * HEDGE
    assert fetcher.asked <= 60 + FIRST_WINDOW


# Holders that are still fetching


def test_a_holder_that_has_a_part_is_asked_for_that_part() -> None:
    of = content(8)
    transfer, actions = started(of, A, B)
    assert actions == [ask(of, A, 0, 1, 2, 3), ask(of, B, 4, 5, 6, 7)]
    assert transfer.handle(Answered(holder=B, answer=Haves(chunks=0b0010_0001)), 0.1) == []
    assert transfer.handle(Answered(holder=B, answer=Lacking(index=4)), 0.1) == []
    assert transfer.handle(Answered(holder=B, answer=of.chunk(5)), 0.1) == [save(of, 5)]
    actions = transfer.handle(Answered(holder=A, answer=of.chunk(0)), 0.2)
    assert actions == [save(of, 0)]
    actions = transfer.handle(Answered(holder=A, answer=of.chunk(1)), 0.2)
    assert actions == [save(of, 1), ask(of, A, 4)]
    for index in (6, 7):
        transfer.handle(Answered(holder=B, answer=Lacking(index=index)), 0.3)
    assert transfer.is_idle(B)
    (poll,) = transfer.handle_timer(0.3 + POLL_INTERVAL)
    assert poll == ask(of, B)
    assert not transfer.is_idle(B)
    answer = transfer.handle(Answered(holder=B, answer=Haves(chunks=of.everything)), 1.4)
    assert answer == [ask(of, B, 2, 3)] or answer[0].holder == B  # type: ignore[union-attr]


def test_who_told_that_it_has_a_chunk_cannot_take_it_back() -> None:
    of = content(2)
    transfer, _ = started(of, A)
    transfer.handle(Answered(holder=A, answer=Haves(chunks=0b11)), 0.1)
    leave, _ = transfer.handle(Answered(holder=A, answer=Lacking(index=0)), 0.2)
    assert isinstance(leave, Leave)
    assert leave.reason == "took chunk 0 back"


def test_who_tells_more_often_than_it_is_asked_is_left() -> None:
    of = content(2)
    transfer, _ = started(of, A)
    assert transfer.handle(Answered(holder=A, answer=Haves(chunks=0b11)), 0.1) == []
    leave, _ = transfer.handle(Answered(holder=A, answer=Haves(chunks=0b11)), 0.1)
    assert isinstance(leave, Leave)


def test_a_fetch_that_nobody_can_help_with_gives_up() -> None:
    of = content(8)
    fetcher, network = fetch({A: Holder(of, has=0b0111_1111), B: HasNothing(of)}, of)
    assert isinstance(fetcher.end, GiveUp)
    assert network.now == pytest.approx(STALL_TIMEOUT, abs=1.0)
    assert set(fetcher.left.values()) == {"had nothing of what is missing"}
    assert len(fetcher.saved) == 7
    assert network.holders[B].wants < 2 * STALL_TIMEOUT


def test_who_is_of_no_use_makes_room_for_who_waits() -> None:
    of = content(40)
    useless: dict[PeerId, Holder] = {peer: HasNothing(of) for peer in PEERS[:MAX_ACTIVE]}
    fetcher, network = fetch({**useless, PEERS[20]: Holder(of)}, of)
    assert isinstance(fetcher.end, Complete)
    assert network.now < STALL_TIMEOUT + 2


def test_the_rarest_chunks_are_asked_first() -> None:
    classes = by_rarity(0b1111, [0b0011, 0b0001, 0b1000])
    assert classes == [0b0100, 0b1010, 0b0001, 0]
    assert pick(0b1111, classes, 0, 4) == [2, 1, 3, 0]
    assert pick(0b1111, classes, 3, 2) == [2, 3]
    assert pick(0b1001, classes, 0, 4) == [3, 0]
    of = content(8)
    transfer, _ = started(of, A, B)
    transfer.handle(Answered(holder=A, answer=Haves(chunks=0b0000_1111)), 0.1)
    transfer.handle(Failed(holder=B, reason="failed"), 0.1)
    actions = transfer.handle(HoldersFound(holders=(C,)), 0.1)
    assert actions == [ask(of, C, 4, 5, 6, 7)]


@given(st.lists(st.integers(0, (1 << 20) - 1), max_size=6), st.integers(0, 19), st.integers(0, 25))
def test_picking_is_by_rarity_and_then_from_the_start(partial: list[int], start: int, count: int) -> None:
    everything = (1 << 20) - 1
    candidates = partial[0] if partial else everything
    picked = pick(candidates, by_rarity(everything, partial), start, count)
    expected = sorted(
        (index for index in range(20) if candidates >> index & 1),
        key=lambda index: (sum(chunks >> index & 1 for chunks in partial), index < start, index),
    )
    assert picked == expected[:count]


def swarm(of: Content, peers: int, delay: float) -> tuple[list[Fetcher], Holder]:
    """So many fetch from one seed whose line is slow, and from one another."""
    seed = Holder(of)
    network = Network({A: seed})
    fetchers = []
    for number in range(peers):
        others = [PEERS[10 + other] for other in range(peers) if other != number]
        start = number * len(of.chunks) // peers
        fetchers.append(Fetcher(peer=PEERS[10 + number], content=of, holders=[A, *others], start=start))
        network.add(fetchers[-1])
    seed.delay = delay  # for each of them
    network.run(fetchers)
    return fetchers, seed


def test_peers_that_fetch_at_the_same_time_give_chunks_to_one_another() -> None:
    of = content(96)
    fetchers, seed = swarm(of, 4, 0.5)
    assert all(isinstance(fetcher.end, Complete) for fetcher in fetchers)
    assert seed.sent < 2 * 96  # of 4 × 96
    assert max(fetcher.ended_at for fetcher in fetchers) < 0.5 * 96 * 0.6


def test_when_the_only_whole_holder_leaves_the_others_finish_with_what_they_have() -> None:
    of = content(40)
    network = Network({A: HangsUp(of)})
    holders = [A, B, C]
    one = Fetcher(peer=B, content=of, holders=holders, have=(1 << 20) - 1)
    other = Fetcher(peer=C, content=of, holders=holders, have=of.everything ^ (1 << 20) - 1)
    network.add(one)
    network.add(other)
    network.run([one, other])
    assert isinstance(one.end, Complete)
    assert isinstance(other.end, Complete)


# Bounds


@pytest.mark.parametrize("fetches", [1, 3, 1000])
def test_no_more_is_asked_for_than_the_share_of_the_budget(fetches: int) -> None:
    of = content(200)
    budget = Budget(30, 2)
    for _ in range(fetches - 1):
        budget.open()
    holders: dict[PeerId, Holder] = {peer: Holder(of) for peer in PEERS[:5]}
    fetcher, _ = fetch(holders, of, budget=budget, save_time=0.3)
    assert isinstance(fetcher.end, Complete)
    assert fetcher.most_open <= max(2, 30 // fetches)
    budget.close()
    assert budget.share >= 30 // fetches


def test_a_disk_that_is_slow_is_nobodys_fault() -> None:
    of = content(20)
    fetcher, network = fetch({A: Holder(of)}, of, budget=Budget(4, 2), save_time=60.0)
    assert isinstance(fetcher.end, Complete)
    assert fetcher.left == {}
    assert network.now >= 5 * 60.0


BEHAVIOURS = [Holder, Slow, Silent, Gone, HangsUp, Stops, Liar, TakesBack, Talks, SendsOthers, HasNothing]


@settings(max_examples=150, deadline=None)
@given(
    behaviours=st.lists(st.sampled_from(BEHAVIOURS), max_size=12),
    chunks=st.integers(1, 50),
    parts=st.lists(st.integers(0, (1 << 50) - 1), max_size=3),
    have=st.integers(0, (1 << 50) - 1),
    start=st.integers(0, 49),
    share=st.integers(2, 96),
    save_time=st.sampled_from([0.0, 0.5]),
)
def test_a_fetch_ends_with_the_true_bytes_or_without_any(
    behaviours: list[type[Holder]],
    chunks: int,
    parts: list[int],
    have: int,
    start: int,
    share: int,
    save_time: float,
) -> None:
    """It never ends wrong, and gives up only when no holder was honest and whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merkle, "CHUNK_SIZE", SMALL_CHUNK)
        of = content(chunks)
        holders: dict[PeerId, Holder] = {
            peer: kind(of) for peer, kind in zip(PEERS, behaviours, strict=False)
        }
        holders |= {
            peer: Holder(of, has=part & of.everything) for peer, part in zip(PEERS[20:], parts, strict=False)
        }
        fetcher, _ = fetch(
            holders,
            of,
            have=have & of.everything,
            start=start % chunks,
            budget=Budget(share, 2),
            save_time=save_time,
        )
    assert fetcher.most_open <= share + HEDGED * MAX_ACTIVE  # copies of late chunks come on top
    if isinstance(fetcher.end, Complete):
        assert fetcher.have == of.everything
    else:
        assert not {Holder, Slow} & set(behaviours)
    whole = [peer for peer, holder in holders.items() if type(holder) in (Holder, Slow)]
    assert isinstance(fetcher.end, GiveUp) or not any(
        peer in fetcher.left for peer in whole if holders[peer].has == of.everything
    )


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.integers(1, 60),
    starts=st.lists(st.integers(0, 59), min_size=2, max_size=6),
    have=st.lists(st.integers(0, (1 << 60) - 1), min_size=6, max_size=6),
    bad=st.lists(st.sampled_from(BEHAVIOURS[2:]), max_size=3),
)
def test_a_swarm_that_has_every_chunk_somewhere_ends_whole(
    chunks: int, starts: list[int], have: list[int], bad: list[type[Holder]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merkle, "CHUNK_SIZE", SMALL_CHUNK)
        of = content(chunks)
        members = PEERS[10 : 10 + len(starts)]
        liars: dict[PeerId, Holder] = {peer: kind(of) for peer, kind in zip(PEERS, bad, strict=False)}
        network = Network(dict(liars))
        rest = of.everything
        for chunks_of in have[1 : len(starts)]:
            rest &= ~chunks_of
        fetchers = []
        for number, peer in enumerate(members):
            mine = (have[number] & of.everything) if number else rest
            others = [other for other in members if other != peer]
            fetcher = Fetcher(
                peer=peer, content=of, holders=[*liars, *others], start=starts[number] % chunks, have=mine
            )
            fetchers.append(fetcher)
            network.add(fetcher)
        network.run(fetchers)
    assert all(isinstance(fetcher.end, Complete) for fetcher in fetchers)
    assert all(fetcher.have == of.everything for fetcher in fetchers)
