"""A pseudo-random permutation of any range in O(1) memory: a Feistel network with cycle walking."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.data.shingles import mix

ROUNDS = 6


def permuted(positions: NDArray[np.int64], size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Images of `positions` (each in [0, size)) under the permutation of (seed, epoch), in [0, size).

    The network permutes the next power of two; a value that falls outside is sent through again until it
    falls inside, less than twice on average.
    """
    bits = max(2, (size - 1).bit_length())
    keys = _round_keys(seed, epoch)
    values = _network(positions.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(values >= size)
    while len(outside):
        values[outside] = _network(values[outside], bits, keys)
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def _round_keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    salted: NDArray[np.uint64] = np.array([seed & (1 << 64) - 1, epoch], np.uint64)
    words = mix(salted ^ np.uint64(0x9E3779B97F4A7C15))
    key = mix(mix(words[:1]) ^ words[1:])
    rounds: NDArray[np.uint64] = np.arange(1, ROUNDS + 1, dtype=np.uint64)
    return mix(key + rounds)


def _network(values: NDArray[np.uint64], bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One pass over values below 2**bits; the halves swap places, and widths, each round."""
    left_bits, right_bits = bits - bits // 2, bits // 2
    left, right = values >> np.uint64(right_bits), values & _mask(right_bits)
    for key in keys:
        left, right = right, left ^ (mix(right + key) & _mask(left_bits))
        left_bits, right_bits = right_bits, left_bits
    joined: NDArray[np.uint64] = (left << np.uint64(right_bits)) | right
    return joined


def _mask(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)
