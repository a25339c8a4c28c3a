"""A process that is killed while it fetches: the next one goes on where it was."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import trio

from p2p.address import parse_address
from p2p.blobs import PROTOCOL, BlobStore, open_blobs
from p2p.blobs.merkle import CHUNK_SIZE
from p2p.blobs.wire import MAX_REQUEST, Haves, Want, decode_want, encode_answer, encode_want
from p2p.files import FolderFiles
from p2p.framing import DelimitedReader
from p2p.host import Host, open_host
from p2p.peer_id import PeerId
from p2p.stream import Stream
from tests.blobs.support import blob, chunk_of
from tests.blobs.test_driver import receive_answer

DATA = blob(17 * CHUNK_SIZE)  # more than is kept in memory
FETCH = """
import sys, trio
from pathlib import Path
from p2p.address import parse_address
from p2p.blobs import BlobStore, open_blobs
from p2p.files import FolderFiles
from p2p.host import open_host
from p2p.peer_id import PeerId

async def main(folder, root, size, peer, address):
    async with open_host() as host, open_blobs(host, BlobStore(FolderFiles(Path(folder)), 1 << 30)) as blobs:
        await host.connect(PeerId.parse(peer), [parse_address(address)])
        await blobs.fetch_into_store(bytes.fromhex(root), int(size), [PeerId.parse(peer)])

trio.run(main, *sys.argv[1:])
"""


async def count_haves(host: Host, peer: PeerId, root: bytes) -> int:
    """How many chunks a peer says to have."""
    stream = await host.open_stream(peer, [PROTOCOL])
    await stream.send_all(encode_want(Want(root=root, size=len(DATA), indexes=())))
    answer = await receive_answer(stream)
    await stream.aclose()
    assert isinstance(answer, Haves)
    return answer.chunks.bit_count()


async def test_a_process_that_was_killed_has_lost_little_of_what_it_fetched(tmp_path: Path) -> None:
    chunks = [chunk_of(DATA, index) for index in range(17)]
    root = BlobStore(None, len(DATA)).put(DATA)
    served = 0
    stuck = trio.Event()

    async def serve_ten(stream: Stream) -> None:
        nonlocal served
        reader = DelimitedReader(stream, MAX_REQUEST)
        while message := await reader.receive():
            for index in decode_want(message).indexes:
                if served == 10:
                    stuck.set()
                    await trio.sleep_forever()
                for piece in encode_answer(chunks[index]):
                    await stream.send_all(piece)
                served += 1

    async with open_host(listen=[parse_address("/ip4/127.0.0.1/tcp/0")]) as host:
        host.handle(PROTOCOL, serve_ten)
        arguments = [str(tmp_path), root.hex(), str(len(DATA)), str(host.peer_id), str(host.addresses()[0])]
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", FETCH, *arguments], stderr=subprocess.DEVNULL
        )
        with trio.fail_after(150):
            await stuck.wait()
            (child,) = host.peers()
            while await count_haves(host, child, root) < 8:
                pass  # it is about to write what it has
        process.send_signal(signal.SIGKILL)
        await process.wait()
        host.unhandle(PROTOCOL)

        again = BlobStore(FolderFiles(tmp_path), 1 << 30)
        assert root not in again
        partial = again.begin(root, len(DATA))
        assert partial.have.bit_count() >= 8
        again.suspend(partial)
        held = BlobStore(None, 1 << 30)
        held.put(DATA)
        async with open_blobs(host, held) as server:
            process = await trio.lowlevel.open_process([sys.executable, "-c", FETCH, *arguments])
            assert await process.wait() == 0
            assert server.bytes_sent < (17 - 7) * CHUNK_SIZE
        assert BlobStore(FolderFiles(tmp_path), 1 << 30).get(root) == DATA
