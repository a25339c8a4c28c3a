import base64
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import InvalidInput
from p2p.pnet import PreSharedKey

HEX = "6189c5cf0b87fb800c1a9feeda73c6ab5e998db48fb9e6a978575c770ceef683"
SECRET = bytes.fromhex(HEX)
FILE = f"/key/swarm/psk/1.0.0/\n/base16/\n{HEX}\n".encode()


def test_a_key_file_survives_a_round_trip() -> None:
    assert PreSharedKey.parse(FILE).secret == SECRET
    assert PreSharedKey(SECRET).encode() == FILE


@pytest.mark.parametrize(
    "file",
    [
        FILE.decode(),
        FILE.rstrip(),
        FILE.replace(b"\n", b"\r\n"),
        FILE.upper().replace(b"/KEY/SWARM/PSK/1.0.0/", b"/key/swarm/psk/1.0.0/").replace(b"/BASE", b"/base"),
        FILE + b"\n \n",
        b"/key/swarm/psk/1.0.0/\n/base64/\n" + base64.b64encode(SECRET),
        b"/key/swarm/psk/1.0.0/\n/base64/\n" + base64.encodebytes(SECRET),
        b"/key/swarm/psk/1.0.0/\n/bin/\n" + SECRET,
        b"/key/swarm/psk/1.0.0/\r\n/bin/\r\n" + SECRET + b"\r\n",
    ],
)
def test_other_ways_to_write_the_same_key_are_read(file: bytes | str) -> None:
    assert PreSharedKey.parse(file).secret == SECRET


def test_a_binary_key_may_hold_line_ends() -> None:
    secret = b"\n" * 31 + b"\r"
    assert PreSharedKey.parse(b"/key/swarm/psk/1.0.0/\n/bin/\n" + secret).secret == secret


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"", "begins with the line /key/swarm/psk/1.0.0/"),
        (FILE[1:], "begins with the line"),
        (FILE.replace(b"1.0.0", b"2.0.0"), "begins with the line"),
        (HEX.encode(), "begins with the line"),
        (b"/key/swarm/psk/1.0.0/", "second line"),
        (FILE.replace(b"base16", b"base32"), "second line .* /base16/, /base64/, /bin/"),
        (FILE.replace(HEX.encode(), b""), "32 bytes, not 0"),
        (FILE.replace(HEX.encode(), HEX.encode()[:-2]), "32 bytes, not 31"),
        (FILE.replace(HEX.encode(), HEX.encode() + b"00"), "32 bytes, not 33"),
        (FILE.replace(HEX.encode(), HEX.encode()[:-1]), "not in /base16/"),
        (FILE.replace(HEX.encode(), HEX.encode()[:-1] + b"g"), "not in /base16/"),
        (FILE.replace(HEX.encode(), b"\xff" * 64), "not in /base16/"),
        (b"/key/swarm/psk/1.0.0/\n/base64/\nAAAA*", "not in /base64/"),
        (b"/key/swarm/psk/1.0.0/\n/base64/\n" + base64.b64encode(SECRET[:-1]), "32 bytes, not 31"),
        (b"/key/swarm/psk/1.0.0/\n/bin/\n" + SECRET[:-1], "32 bytes, not 31"),
        (b"/key/swarm/psk/1.0.0/\n/bin/\n" + SECRET + b"x", "32 bytes, not 33"),
        (FILE + b" " * 5000, "up to 4096 bytes"),
    ],
)
def test_what_is_no_key_file_is_refused_and_not_shown(file: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        PreSharedKey.parse(file)
    assert HEX[:16] not in str(caught.value)


@given(
    st.binary(max_size=120),
    st.sampled_from([b"", *(FILE[:22] + base for base in (b"/base16/\n", b"/bin/\n"))]),
)
def test_random_files_are_keys_or_invalid(rest: bytes, head: bytes) -> None:
    try:
        key = PreSharedKey.parse(head + rest)
    except InvalidInput:
        return
    assert PreSharedKey.parse(key.encode()) == key


def test_the_fingerprint_is_that_of_go_and_rust() -> None:
    """rust-libp2p's test, which was checked against go-ipfs."""
    assert PreSharedKey(SECRET).fingerprint == "45fc986bbc9388a11d939df26f730f0c"


def test_a_key_does_not_show_its_secret() -> None:
    assert HEX[:8] not in repr(PreSharedKey(SECRET))
    assert repr(SECRET) not in repr(PreSharedKey(SECRET))


def test_who_has_no_key_does_not_pay_for_the_cipher() -> None:
    code = "import sys, p2p.pnet; sys.exit(any(name.split('.')[0] == 'Crypto' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
