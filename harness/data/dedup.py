"""Exact and near duplicates among any number of documents, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from harness.data.shingles import SKETCH_BINS, U64, mix

# 32 bands of 4 bins find a pair of similarity 0.7 with probability 0.9998; the full sketch then decides.
BANDS = 32
ROWS = SKETCH_BINS // BANDS
NEAR_SIMILARITY = 0.7
# Keys sorted at a time: 8 bytes a key and three such arrays, so about 200 MB.
SORTED_KEYS = 8_000_000
_CHUNK = 65_536


def exact_duplicates(digests: U64) -> NDArray[np.bool_]:
    """True where an earlier row of `digests` [documents, words] is equal; the first word must be uniform."""
    duplicate = np.zeros(len(digests), bool)
    for members, leaders, _ in _collisions(digests[:, 0], np.arange(len(digests))):
        same = np.all(digests[members] == digests[leaders], axis=1)
        duplicate[members[same]] = True
    return duplicate


def near_duplicates(sketches: NDArray[np.uint32], candidates: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True where an earlier candidate is similar; `sketches` is [documents, SKETCH_BINS], may be a memmap.

    Within a band's bucket a document is compared with the first and with the previous one, so the work
    grows with the number of documents and not with the number of pairs.
    """
    duplicate = np.zeros(len(sketches), bool)
    for band in range(BANDS):
        keys = _band_keys(sketches, candidates, band)
        for members, leaders, previous in _collisions(keys, candidates):
            open_pairs = ~duplicate[members]
            members, leaders, previous = members[open_pairs], leaders[open_pairs], previous[open_pairs]
            for part in _chunks(len(members)):
                rows = sketches[members[part]]
                similar = np.maximum(
                    (rows == sketches[leaders[part]]).mean(axis=1),
                    (rows == sketches[previous[part]]).mean(axis=1),
                )
                duplicate[members[part][similar >= NEAR_SIMILARITY]] = True
    return duplicate


def _chunks(count: int) -> Iterator[slice]:
    for first in range(0, count, _CHUNK):
        yield slice(first, min(first + _CHUNK, count))


def _band_keys(sketches: NDArray[np.uint32], candidates: NDArray[np.int64], band: int) -> U64:
    keys = np.empty(len(candidates), np.uint64)
    for part in _chunks(len(candidates)):
        rows = sketches[candidates[part], band * ROWS : (band + 1) * ROWS].astype(np.uint64)
        key = rows[:, 0]
        for row in range(1, ROWS):
            key = mix(key) + rows[:, row]
        keys[part] = mix(key)
    return keys


def _collisions(
    keys: U64, documents: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """(member, first of its bucket, previous of its bucket) for every document whose key came before."""
    passes = -(-len(keys) // SORTED_KEYS)
    for index in range(passes):
        chosen = np.flatnonzero(keys % np.uint64(passes) == index) if passes > 1 else np.arange(len(keys))
        chosen = chosen[np.argsort(keys[chosen], kind="stable")]
        ordered = keys[chosen]
        starts = np.ones(len(ordered), bool)
        starts[1:] = ordered[1:] != ordered[:-1]
        leader = np.maximum.accumulate(np.where(starts, np.arange(len(ordered)), 0))
        later = np.flatnonzero(~starts)
        yield documents[chosen[later]], documents[chosen[leader[later]]], documents[chosen[later - 1]]
