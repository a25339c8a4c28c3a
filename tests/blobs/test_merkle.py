from __future__ import annotations

import hashlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.blobs.merkle import (
    CHUNK_SIZE,
    EMPTY_ROOT,
    MerkleTree,
    PartialTree,
    all_chunks,
    blob_root,
    chunk_count,
    chunk_length,
    leaf_hash,
    node_hash,
    split,
)
from tests.blobs.support import THREE, verify_chunk

# The leaves and roots of Certificate Transparency's reference tree (certificate-transparency-go,
# merkle/testonly/constants.go), which follows RFC 6962, section 2.1.
CT_LEAVES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def tree_of(chunks: list[bytes]) -> MerkleTree:
    return MerkleTree([leaf_hash(chunk) for chunk in chunks])


def test_roots_are_those_of_certificate_transparency() -> None:
    leaves = [bytes.fromhex(leaf) for leaf in CT_LEAVES]
    for count, root in enumerate(CT_ROOTS, start=1):
        assert tree_of(leaves[:count]).root.hex() == root


def test_the_empty_blob_has_the_hash_of_the_empty_list() -> None:
    assert blob_root(b"") == EMPTY_ROOT == MerkleTree([]).root == hashlib.sha256(b"").digest()


def test_a_blob_of_one_chunk_is_named_by_its_leaf() -> None:
    assert blob_root(b"x") == hashlib.sha256(b"\x00x").digest()
    assert tree_of([b"x"]).proof(0) == ()


def test_chunks_have_256_kib_and_the_last_one_the_rest() -> None:
    size = len(THREE)
    chunks = [bytes(chunk) for chunk in split(THREE)]
    assert b"".join(chunks) == THREE
    assert chunk_count(size) == 3
    assert [len(chunk) for chunk in chunks] == [chunk_length(size, index) for index in range(3)]
    assert [chunk_count(n) for n in (0, 1, CHUNK_SIZE, CHUNK_SIZE + 1)] == [0, 1, 1, 2]


@given(st.integers(1, 70))
def test_every_proof_verifies_at_its_own_place_only(count: int) -> None:
    chunks = [bytes([index]) for index in range(count)]
    tree = tree_of(chunks)
    for index, chunk in enumerate(chunks):
        proof = tree.proof(index)
        assert verify_chunk(tree.root, count, index, chunk, proof)
        assert not verify_chunk(tree.root, count, index, chunk + b"!", proof)
        assert not verify_chunk(tree.root, count, (index + 1) % count, chunk, proof) or count == 1
        assert not verify_chunk(tree.root, count, index, chunk, (*proof, b"\0" * 32))
        assert not verify_chunk(tree.root, count, index, chunk, proof[:-1]) or not proof
        assert not verify_chunk(bytes(32), count, index, chunk, proof)


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_the_blob_is_refused(index: int) -> None:
    tree = tree_of([b"a", b"b", b"c"])
    assert not verify_chunk(tree.root, 3, index, b"c", tree.proof(2))


def test_a_node_does_not_pass_for_a_chunk() -> None:
    a, b = leaf_hash(b"a"), leaf_hash(b"b")
    assert not verify_chunk(node_hash(a, b), 1, 0, a + b, ())
    assert not verify_chunk(node_hash(a, b), 1, 0, b"\x01" + a + b, ())


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=20), st.data())
def test_a_changed_bit_in_a_proof_is_found(chunks: list[bytes], data: st.DataObject) -> None:
    tree = tree_of(chunks)
    index = data.draw(st.integers(0, len(chunks) - 1))
    proof = list(tree.proof(index))
    if proof:
        level = data.draw(st.integers(0, len(proof) - 1))
        bit = data.draw(st.integers(0, 255))
        changed = int.from_bytes(proof[level], "big") ^ 1 << bit
        proof[level] = changed.to_bytes(32, "big")
        assert not verify_chunk(tree.root, len(chunks), index, chunks[index], proof)


@given(st.integers(1, 70), st.randoms())
def test_a_partial_tree_takes_true_chunks_in_any_order_and_proves_them_on(count: int, order: Random) -> None:
    chunks = [bytes([index]) for index in range(count)]
    tree = tree_of(chunks)
    partial = PartialTree(tree.root, count)
    for index in order.sample(range(count), count):
        proof = tree.proof(index)
        assert not partial.add(index, [b"false"], proof)
        assert count == 1 or not partial.add((index + 1) % count, [chunks[index]], proof)
        assert partial.add(index, [chunks[index]], proof)
        assert partial.leaf(index) == tree.leaf(index)
        assert partial.proof(index) == proof
        assert partial.add(index, [chunks[index]], ())  # known by now
    assert all(partial.proof(index) == tree.proof(index) for index in range(count))
    assert partial.root == tree.root


@given(st.integers(2, 40), st.data())
def test_a_partial_tree_believes_no_changed_proof(count: int, data: st.DataObject) -> None:
    chunks = [bytes([index]) for index in range(count)]
    tree = tree_of(chunks)
    index = data.draw(st.integers(0, count - 1))
    proof = list(tree.proof(index))
    for place in range(len(proof)):
        changed = [*proof[:place], bytes(32), *proof[place + 1 :]]
        partial = PartialTree(tree.root, count)
        assert not partial.add(index, [chunks[index]], changed)
        assert not partial.add(index, [chunks[index]], proof[:place])
        other = (index + 1) % count
        assert partial.add(other, [chunks[other]], tree.proof(other))  # nothing false was remembered
        assert partial.proof(other) == tree.proof(other)


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_the_blob_is_not_in_a_partial_tree(index: int) -> None:
    tree = tree_of([b"a", b"b", b"c"])
    assert not PartialTree(tree.root, 3).add(index, [b"c"], tree.proof(2))


def test_all_chunks_are_one_bit_each() -> None:
    assert all_chunks(len(THREE)) == 0b111
