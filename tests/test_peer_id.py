import json
from pathlib import Path

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import InvalidKey
from p2p.keys import KeyPair, PublicKey
from p2p.peer_id import PeerId

VECTORS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "vectors" / "peer_ids.json").read_text()
)["keys"]
ED25519 = VECTORS["ed25519"]["peer_id"]


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_the_id_of_a_key_is_that_of_the_vector(vector: dict[str, str]) -> None:
    peer = PeerId.from_public_key(PublicKey.decode(bytes.fromhex(vector["public"])))
    assert str(peer) == vector["peer_id"]
    assert PeerId.parse(vector["peer_id"]) == PeerId.parse(vector["cid"]) == peer


@pytest.mark.parametrize("name", VECTORS)
def test_short_keys_are_inside_the_id_and_long_ones_are_not(name: str) -> None:
    peer = PeerId.parse(VECTORS[name]["peer_id"])
    if name in ("ed25519", "secp256k1"):
        key = peer.public_key()
        assert key is not None
        assert key.encode().hex() == VECTORS[name]["public"]
        assert PeerId.from_public_key(key) == peer
    else:
        assert peer.raw[:2] == b"\x12\x20"
        assert peer.public_key() is None


@pytest.mark.parametrize(
    "text",
    [
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA",
    ],
)
def test_the_texts_of_the_specification_survive_a_round_trip(text: str) -> None:
    assert str(PeerId.parse(text)) == text


def test_the_cid_of_the_specification_is_its_base58_form() -> None:
    cid = PeerId.parse("bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe")
    assert str(cid) == "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


def test_a_cid_in_another_base_is_the_same_id() -> None:
    peer = PeerId.parse(ED25519)
    cid = b"\x01\x72" + peer.raw
    assert PeerId.parse("z" + base58.b58encode(cid).decode()) == peer
    assert PeerId.parse("f" + cid.hex()) == peer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "Qm",
        "x",
        "0",
        ED25519[:-1],
        ED25519 + "1",
        ED25519 + "\n",
        ED25519 + " ",
        " " + ED25519,
        ED25519.replace("W", "0"),
        ED25519.replace("W", "é"),
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5",
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",  # a CID of dag-pb data
        "bafz",
        "b" * 500,
    ],
)
def test_what_is_not_a_peer_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidKey, match="not a peer id"):
        PeerId.parse(text)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "00",
        "0000",
        "1220" + "00" * 31,
        "1220" + "00" * 33,
        "1221" + "00" * 33,
        "0024" + "00" * 36,
        "0025" + "08011220" + "11" * 32,
        "0023" + "08011220" + "11" * 31,
        "002b" + "00" * 43,
        "1120" + "00" * 32,
    ],
)
def test_bytes_that_are_no_multihash_of_a_key_are_refused(raw: str) -> None:
    with pytest.raises(InvalidKey):
        PeerId(bytes.fromhex(raw))


def test_ids_compare_and_sort_by_their_bytes() -> None:
    peers = [PeerId.from_public_key(KeyPair.from_seed(bytes([n]) * 32).public) for n in range(5)]
    assert [peer.raw for peer in sorted(peers)] == sorted(peer.raw for peer in peers)
    assert len({*peers, *(PeerId(peer.raw) for peer in peers)}) == 5


def test_an_id_shows_itself_in_base58() -> None:
    peer = PeerId.parse(ED25519)
    assert repr(peer) == f"PeerId({ED25519})"
    assert peer.short == ED25519[-8:]


@given(st.sampled_from([b"", b"\x12\x20", b"\x00\x24\x08\x01\x12\x20"]), st.binary(max_size=40))
def test_random_bytes_are_an_id_or_a_typed_error(head: bytes, rest: bytes) -> None:
    try:
        peer = PeerId(head + rest)
    except InvalidKey:
        return
    assert PeerId.parse(str(peer)) == peer


@given(st.text(max_size=80) | st.text("123456789ABCDEFGHabcdefghQm", max_size=60).map("Qm".__add__))
def test_random_text_is_an_id_or_a_typed_error(text: str) -> None:
    try:
        peer = PeerId.parse(text)
    except InvalidKey:
        return
    assert PeerId.parse(str(peer)) == peer
