"""±1 ↔ 64-bit words: the only bit convention.

Bit 1 means -1, that is x < threshold; zero and NaN are +1. Sign k of a row is bit k mod 64 (0 is the lowest) of word
k div 64. The bits beyond the last sign are 0 on both sides of a product, so they never disagree and need no correction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint64]
Signs = NDArray[np.int8]

WORD = 64


def words(channels: int) -> int:
    """Return how many 64-bit words hold `channels` signs."""
    return -(-channels // WORD)


def pack(x: NDArray[Any], threshold: ArrayLike = 0) -> Words:
    """Return the signs of `x` (R, C) as (R, words(C)) words: bit = x < threshold.

    threshold  one number, or (C,)
    A matrix of ±1 needs no threshold.
    """
    with np.errstate(invalid="ignore"):  # a NaN compares as false, silently: it is +1
        return pack_minus(x < np.asarray(threshold))


def pack_minus(minus: NDArray[np.bool_]) -> Words:
    """Return words (R, words(C)) whose bits are `minus` (R, C): true where the sign is -1."""
    octets = np.packbits(minus, axis=1, bitorder="little")
    padded = np.zeros((len(minus), 8 * words(minus.shape[1])), np.uint8)
    padded[:, : octets.shape[1]] = octets
    return padded.view("<u8").astype(np.uint64, copy=False)


def unpack(packed: Words, channels: int) -> Signs:
    """Return the ±1 (R, channels) of packed signs (R, words(channels))."""
    octets = np.ascontiguousarray(packed, dtype="<u8").view(np.uint8)
    minus = np.unpackbits(octets, axis=1, count=channels, bitorder="little").astype(np.int8)
    return np.int8(1) - np.int8(2) * minus


def pack_weights(signs: NDArray[Any]) -> Words:
    """Return a weight matrix (C, K) as (words(K), C): column c of word w has inputs 64 w .. 64 w + 63 of output c."""
    return np.ascontiguousarray(pack(signs).T)


def unpack_weights(weight: Words, inputs: int) -> Signs:
    """Return the ±1 (C, inputs) of packed weights (words(inputs), C)."""
    return unpack(np.ascontiguousarray(weight.T), inputs)


def mismatches(x: Words, weight: Words) -> NDArray[np.int64]:
    """Return popcount(x[r] ^ weight[:, c]) as (R, C): packed rows (R, W) against packed weights (W, C).

    The product of the signs behind them is inputs - 2 * mismatches.
    """
    count = np.zeros((len(x), weight.shape[1]), np.int64)
    for word in range(len(weight)):
        count += np.bitwise_count(x[:, word, None] ^ weight[word])
    return count
