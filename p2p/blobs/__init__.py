"""Content-addressed blobs over direct streams: 256 KiB chunks under a Merkle root, verified on arrival."""

from p2p.blobs.driver import Blobs, open_blobs
from p2p.blobs.errors import BlobUnavailable, StoreFull
from p2p.blobs.merkle import blob_root
from p2p.blobs.store import BlobStore
from p2p.blobs.wire import MAX_BLOB, PROTOCOL

__all__ = [
    "MAX_BLOB",
    "PROTOCOL",
    "BlobStore",
    "BlobUnavailable",
    "Blobs",
    "StoreFull",
    "blob_root",
    "open_blobs",
]
