"""Differential privacy of a member's updates: clipped, noised, and counted before they leave.

    delta ──→ clip to `clip` ──→ + N(0, (noise · clip)²) ──→ grid ──→ compressed, encoded, published
                                       count, durable ↗

Every member sees every other member's update, so what holds is *local*: two data sets of one member, however
they differ, lead to updates that nobody can tell apart by more than (ε, δ), whatever else is known. Such
updates are at most 2 · `clip` apart, and by that much the noise is measured. The number of examples would
give something away too: every private update says 1.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from federated.append import storage_errors
from federated.errors import PluginError, StorageError
from federated.manifest import DifferentialPrivacy
from federated.parameters import Array, Parameters, l2_norm, non_finite

if TYPE_CHECKING:
    from p2p.files import Files

EXAMPLES = 1  # that a private update says it stands for
KEY = 32  # bytes; of AES-256
BLOCK = 1 << 16  # values drawn at a time
GRID = 10  # bits by which the grid of the values is finer than the noise

LEDGER = "privacy"  # the file
RECORD = struct.Struct(">8s32sQ")  # magic, task, updates
MAGIC = b"atcp-dp1"
CHECKSUM = 32  # bytes; SHA-256


def privatise(delta: Parameters, policy: DifferentialPrivacy, key: bytes) -> Parameters:
    """`delta` with its norm clipped and noise on every value, in the same dtypes.

    `key` is 32 bytes that nobody knows, and that are used once. Values come to lie on a grid of about a
    thousandth of the noise: the last bits of a float would tell what it was before the noise. Raises
    `PluginError` for what is not finite. Source: Abadi et al. 2016, "Deep Learning with Differential
    Privacy"; Mironov 2012, "On Significance of the Least Significant Bits For Differential Privacy".
    """
    if (name := non_finite(delta)) is not None:
        raise PluginError(f"its update of {name} is not finite")
    norm = l2_norm(delta)
    if not math.isfinite(norm):
        raise PluginError("its update is too long to be clipped")
    scale = min(1.0, policy.clip / norm) if norm else 1.0
    spread = policy.noise * policy.clip
    grid = 2.0 ** (math.floor(math.log2(spread)) - GRID)
    draw = gaussian(key)
    return {name: _noised(array, scale, spread, grid, draw) for name, array in sorted(delta.items())}


def _noised(
    array: Array, scale: float, spread: float, grid: float, draw: Callable[[int], NDArray[np.float64]]
) -> Array:
    result = np.empty(array.shape, array.dtype)
    flat, values = result.reshape(-1), array.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        block = values[start : start + BLOCK].astype(np.float64) * scale
        block += spread * draw(block.size)
        block = np.rint(block / grid) * grid
        if array.dtype.kind != "f":
            limits = np.iinfo(array.dtype)
            block = np.clip(np.rint(block), float(limits.min) / 2, float(limits.max) / 2)
        flat[start : start + BLOCK] = block
    return result


def gaussian(key: bytes) -> Callable[[int], NDArray[np.float64]]:
    """Draws standard normal values from the key stream of AES in counter mode, by Box and Muller's method.

    Unlike those of a generator for simulations, they do not tell what the next ones will be.
    """
    if len(key) != KEY:
        raise ValueError(f"a key has {KEY} bytes, not {len(key)}")
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def draw(count: int) -> NDArray[np.float64]:
        pairs = (count + 1) // 2
        words = np.frombuffer(stream.update(bytes(16 * pairs)), "<u8") >> np.uint64(11)
        first, second = (words.astype(np.float64) + 0.5).reshape(2, pairs) * 2.0**-53
        radius, angle = np.sqrt(-2 * np.log(first)), 2 * np.pi * second
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    return draw


class Ledger:
    """How many private updates of the task `task` this member has made, in `files`.

    The count is one small file, replaced whole and durably. Everything here blocks. Raises `StorageError`.
    """

    def __init__(self, files: Files | None, task: bytes) -> None:
        self.count = 0  # once it is open
        self._files = files
        self._task = task

    def open(self) -> None:
        """Reads the count. One that is damaged is refused: nobody knows then what was given away."""
        if self._files is None:
            return
        with storage_errors(f"{self._files}/{LEDGER}"):
            try:
                data = self._files.read(LEDGER, 0, RECORD.size + CHECKSUM + 1)
            except FileNotFoundError:
                return
        body, checksum = data[: RECORD.size], data[RECORD.size :]
        if hashlib.sha256(body).digest() != checksum or RECORD.unpack(body)[:2] != (MAGIC, self._task):
            raise StorageError(
                f"{self._files}/{LEDGER} is damaged: what the updates so far gave away is not known; "
                "remove the file only if another budget may be spent"
            )
        self.count = RECORD.unpack(body)[2]

    def spend(self) -> None:
        """Counts one update more; it is on the disk when this returns. Can be called again when it fails."""
        if self._files is not None:
            body = RECORD.pack(MAGIC, self._task, self.count + 1)
            with storage_errors(f"{self._files}/{LEDGER}"):
                self._files.write_durably(LEDGER, body + hashlib.sha256(body).digest())
        self.count += 1


@dataclass(frozen=True, slots=True)
class Budget:
    """What a member may give away in a task by `policy`, and by `ledger` has given away."""

    policy: DifferentialPrivacy
    ledger: Ledger

    @property
    def epsilon(self) -> float:
        """What the updates so far come to."""
        return self.policy.cost(self.ledger.count)

    @property
    def is_spent(self) -> bool:
        """Whether one update more would be too much."""
        return self.policy.cost(self.ledger.count + 1) > self.policy.epsilon

    def report(self) -> dict[str, Any]:
        """How it stands, ready for JSON."""
        return {
            "epsilon": self.epsilon,
            "delta": self.policy.delta,
            "budget": self.policy.epsilon,
            "updates": self.ledger.count,
        }
