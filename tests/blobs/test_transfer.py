from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.blobs import transfer as transfer_module
from p2p.blobs.merkle import CHUNK_SIZE, blob_root
from p2p.blobs.store import BlobStore
from p2p.blobs.transfer import (
    CHUNK_TIMEOUT,
    MAX_HOLDERS,
    Action,
    Answered,
    Ask,
    Begin,
    Complete,
    Failed,
    GiveUp,
    Leave,
    Transfer,
)
from p2p.blobs.wire import MAX_COUNT, Answer, Chunk, Missing, Request
from p2p.peer_id import PeerId
from tests.blobs.support import PEERS, THREE, blob

STORE = BlobStore(None, 1 << 26)
ROOT = STORE.put(THREE)
A, B, C = PEERS[:3]


def chunk(index: int) -> Chunk:
    found = STORE.chunk(ROOT, len(THREE), index)
    assert found is not None
    return found


def started(*holders: PeerId) -> Transfer:
    transfer = Transfer(ROOT, len(THREE), holders)
    assert transfer.handle(Begin(), 0.0) == [Ask(holder=holders[0], request=request(0))]
    return transfer


def request(first: int) -> Request:
    return Request(root=ROOT, size=len(THREE), first=first, count=3 - first)


def test_a_holder_with_all_chunks_completes_the_fetch() -> None:
    transfer = started(A)
    assert transfer.handle(Answered(holder=A, answer=chunk(0)), 1.0) == []
    assert transfer.handle(Answered(holder=A, answer=chunk(1)), 2.0) == []
    assert transfer.handle(Answered(holder=A, answer=chunk(2)), 3.0) == [Complete(data=THREE)]
    assert transfer.next_deadline is None
    assert transfer.handle_timer(1000.0) == []


def test_a_holder_has_one_deadline_for_every_chunk() -> None:
    transfer = started(A, B)
    assert transfer.next_deadline == CHUNK_TIMEOUT
    transfer.handle(Answered(holder=A, answer=chunk(0)), 4.0)
    assert transfer.next_deadline == 4.0 + CHUNK_TIMEOUT
    assert transfer.handle_timer(3.9 + CHUNK_TIMEOUT) == []
    leave, ask = transfer.handle_timer(4.0 + CHUNK_TIMEOUT)
    assert isinstance(leave, Leave)
    assert leave.holder == A
    assert ask == Ask(holder=B, request=request(1))
    assert transfer.next_deadline == 4.0 + 2 * CHUNK_TIMEOUT


LIES: list[Answer] = [
    Missing(),
    chunk(0),  # the one before
    chunk(2),  # the one after
    Chunk(index=1, proof=chunk(2).proof, data=chunk(1).data),
    Chunk(index=1, proof=(), data=chunk(1).data),
    Chunk(index=1, proof=chunk(1).proof, data=chunk(1).data[:-1]),
    Chunk(index=1, proof=chunk(1).proof, data=chunk(1).data + b"x"),
    Chunk(index=1, proof=chunk(1).proof, data=bytes(CHUNK_SIZE)),
    Chunk(index=-1, proof=chunk(1).proof, data=chunk(1).data),
]


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_ends_the_holders_turn_and_the_next_goes_on_behind_the_true_chunks(lie: Answer) -> None:
    transfer = started(A, B)
    transfer.handle(Answered(holder=A, answer=chunk(0)), 1.0)
    leave, ask = transfer.handle(Answered(holder=A, answer=lie), 2.0)
    assert isinstance(leave, Leave)
    assert leave.holder == A
    assert ask == Ask(holder=B, request=request(1))
    assert transfer.handle(Answered(holder=A, answer=chunk(1)), 2.1) == []  # too late
    assert transfer.handle(Failed(holder=A, reason="reset"), 2.2) == []
    assert transfer.handle(Answered(holder=B, answer=chunk(1)), 3.0) == []
    assert transfer.handle(Answered(holder=B, answer=chunk(2)), 4.0) == [Complete(data=THREE)]


def test_without_a_holder_left_the_fetch_ends_with_every_reason() -> None:
    transfer = started(A, B, A, C)
    transfer.handle(Failed(holder=A, reason="was not reached"), 1.0)
    transfer.handle(Answered(holder=B, answer=Missing()), 2.0)
    leave, end = transfer.handle_timer(2.0 + CHUNK_TIMEOUT)
    assert isinstance(leave, Leave)
    assert isinstance(end, GiveUp)
    assert end.reasons == (
        f"{A.short} was not reached",
        f"{B.short} does not have it",
        f"{C.short} sent no chunk within 5 s",
    )
    assert transfer.next_deadline is None


def test_a_fetch_without_holders_gives_up_at_once() -> None:
    assert Transfer(ROOT, len(THREE), []).handle(Begin(), 0.0) == [GiveUp(reasons=())]


def test_the_number_of_holders_tried_is_bounded() -> None:
    transfer = Transfer(ROOT, len(THREE), PEERS)
    transfer.handle(Begin(), 0.0)
    for peer in PEERS[:MAX_HOLDERS]:
        *_, last = transfer.handle(Failed(holder=peer, reason="failed"), 0.0)
    assert isinstance(last, GiveUp)


def test_a_large_blob_is_asked_for_in_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_module, "MAX_COUNT", 2)
    transfer = Transfer(ROOT, len(THREE), [A])
    (ask,) = transfer.handle(Begin(), 0.0)
    assert ask == Ask(holder=A, request=Request(root=ROOT, size=len(THREE), first=0, count=2))
    assert transfer.handle(Answered(holder=A, answer=chunk(0)), 0.0) == []
    assert transfer.handle(Answered(holder=A, answer=chunk(1)), 0.0) == [Ask(holder=A, request=request(2))]
    assert MAX_COUNT == 64


def honest(store: BlobStore, request: Request) -> Iterator[Answer | None]:
    for index in range(request.first, request.first + request.count):
        yield store.chunk(request.root, request.size, index)


def silent(store: BlobStore, request: Request) -> Iterator[Answer | None]:
    yield None


def gone(store: BlobStore, request: Request) -> Iterator[Answer | None]:
    yield Missing()


def stops(store: BlobStore, request: Request) -> Iterator[Answer | None]:
    yield from itertools.islice(honest(store, request), 1)
    yield Missing()


def lies(store: BlobStore, request: Request) -> Iterator[Answer | None]:
    for answer in honest(store, request):
        assert isinstance(answer, Chunk)
        yield Chunk(index=answer.index, proof=answer.proof, data=answer.data[::-1])


Behaviour = Callable[[BlobStore, Request], Iterator[Answer | None]]


@given(
    st.lists(st.sampled_from([honest, silent, gone, stops, lies]), max_size=8),
    st.integers(1, 5 * CHUNK_SIZE),
    st.integers(1, 3),
)
def test_a_fetch_ends_with_the_true_bytes_or_without_any(
    behaviours: list[Behaviour], size: int, largest_request: int
) -> None:
    """It never ends wrong, and gives up only when no holder was honest."""
    data = blob(size)
    store = BlobStore(None, size)
    root = store.put(data)
    holders = dict(zip(PEERS, behaviours, strict=False))
    transfer = Transfer(root, size, list(holders))
    now = 0.0
    actions: list[Action] = transfer.handle(Begin(), now)
    answers: Iterator[Answer | None] = iter(())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer_module, "MAX_COUNT", largest_request)
        while not isinstance(actions[-1] if actions else None, Complete | GiveUp):
            if actions:
                ask = actions[-1]
                assert isinstance(ask, Ask)
                holder = ask.holder
                answers = holders[holder](store, ask.request)
            answer = next(answers)
            if answer is None:
                assert transfer.next_deadline is not None
                now = transfer.next_deadline
                actions = transfer.handle_timer(now)
            else:
                actions = transfer.handle(Answered(holder=holder, answer=answer), now)
    assert now <= CHUNK_TIMEOUT * behaviours.count(silent)
    if isinstance(actions[-1], Complete):
        assert actions[-1].data == data
    else:
        assert honest not in behaviours
    assert blob_root(data) == root
