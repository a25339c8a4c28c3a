"""One store for all members: a blob stays as long as one of them needs it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.local.blobs import CommonStore, LocalBlobs
from p2p.blobs import BlobStore
from p2p.blobs.errors import BlobUnavailable
from p2p.blobs.merkle import blob_root
from tests.federated.lab import peer_number

BLOBS = [bytes([number]) * (number + 1) for number in range(4)]
ROOTS = [blob_root(blob) for blob in BLOBS]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 3)),
        st.tuples(st.just("discard"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["one", "other"]), st.sets(st.integers(0, 3))),
    ),
    max_size=40,
)


@given(steps)
def test_it_keeps_what_a_store_of_a_peer_would(taken: list[tuple[str, int | set[int]]]) -> None:
    store, model = CommonStore(), BlobStore(None, 1 << 20)
    for what, which in taken:
        if isinstance(which, set):
            for each in (store, model):
                each.retain(what, [ROOTS[number] for number in sorted(which)])
        elif what == "put":
            assert store.put(BLOBS[which]) == model.put(BLOBS[which]) == ROOTS[which]
        else:
            store.discard(ROOTS[which])
            model.discard(ROOTS[which])
        for root in ROOTS:
            assert (root in store, store.get(root)) == (root in model, model.get(root))
        assert len(store) == len(model)


async def test_what_one_member_has_all_have() -> None:
    blobs = LocalBlobs()
    root = blobs.store.put(b"abc")
    assert await blobs.fetch(root, 3, [peer_number(1)]) == b"abc"
    for wrong in ((root, 4), (bytes(32), 3)):
        with pytest.raises(BlobUnavailable, match="no member has it"):
            await blobs.fetch(*wrong, [peer_number(1)])
