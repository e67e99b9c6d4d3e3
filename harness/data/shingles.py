"""Words, shingles and MinHash sketches of many texts at once, as 64-bit hashes equal on any machine.

A word is a run of ASCII letters, digits, `_` and non-ASCII bytes; a character from U+3000 on (CJK, kana,
Hangul) is a word of its own. A shingle is k words in a row within one document.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

SKETCH_BINS = 128
NEAR_WORDS = 5
BLOCK_BYTES = 1 << 19

_EMPTY = np.uint32(0xFFFFFFFF)
_SHINGLE_BASE = np.uint64(0x9E3779B97F4A7C15)


def mix(values: U64) -> U64:
    """The splitmix64 finaliser: every input bit moves every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_BYTE_CODES = mix(np.arange(1, 257, dtype=np.uint64))
_IS_WORD = np.array([chr(b).isalnum() or b == 95 if b < 128 else True for b in range(256)])


@lru_cache(maxsize=2)
def _place_codes(bits: int) -> U64:
    return mix(np.arange(1001, 1001 + (1 << bits), dtype=np.uint64)) | np.uint64(1)


def segment_hashes(text: NDArray[np.uint8], firsts: NDArray[np.int64]) -> U64:
    """Hash of each segment of `text` [bytes], segment i running from firsts[i] to the next: [segments]."""
    lengths = np.diff(firsts, append=len(text))
    place = np.arange(firsts[0], len(text)) - np.repeat(firsts, lengths)
    places = _place_codes(max(12, int(lengths.max()).bit_length()))
    codes = _BYTE_CODES[text[firsts[0] :]] * places[place]
    return mix(np.add.reduceat(codes, firsts - firsts[0]))


def word_hashes(text: NDArray[np.uint8]) -> tuple[U64, NDArray[np.int64]]:
    """Hash and first byte of every word: ([words], [words])."""
    is_word = _IS_WORD[text]
    begins = is_word.copy()
    begins[1:] &= ~is_word[:-1] | (text[1:] >= 0xE3)
    # A word that follows a CJK character without a space begins after its three bytes.
    begins[3:] |= is_word[3:] & (text[:-3] >= 0xE3) & (text[:-3] < 0xF0) & (text[3:] < 0x80)
    letters = np.flatnonzero(is_word)
    first = np.flatnonzero(begins[letters])
    if not len(first):
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    return segment_hashes(text[letters], first), letters[first]


def shingle_hashes(words: U64, length: int) -> U64:
    """Hash of every run of `length` words: [words - length + 1], empty for a shorter text."""
    count = len(words) - length + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = words[:count].copy()
    for offset in range(1, length):
        total *= _SHINGLE_BASE
        total += words[offset : offset + count]
    return mix(total)


def document_shingles(texts: Sequence[bytes], length: int) -> tuple[U64, NDArray[np.int64]]:
    """Shingles of all texts and the index of the text each lies in: ([shingles], [shingles])."""
    joined = np.frombuffer(b"\n".join(texts), np.uint8)
    words, starts = word_hashes(joined)
    ends = np.cumsum([len(text) + 1 for text in texts])
    owner = np.searchsorted(ends, starts, side="right")
    hashes = shingle_hashes(words, length)
    within = owner[: len(hashes)] == owner[length - 1 :] if len(hashes) else np.empty(0, bool)
    return hashes[within], owner[: len(hashes)][within]


def blocks(texts: Sequence[bytes]) -> Iterator[slice]:
    """Slices of `texts` of about half a megabyte, so that the arrays above stay in cache."""
    first, size = 0, 0
    for index, text in enumerate(texts):
        size += len(text)
        if size >= BLOCK_BYTES:
            yield slice(first, index + 1)
            first, size = index + 1, 0
    if first < len(texts):
        yield slice(first, len(texts))


def sketches(texts: Sequence[bytes]) -> NDArray[np.uint32]:
    """One-permutation MinHash of every text: [texts, SKETCH_BINS].

    The share of equal bins of two texts estimates the Jaccard similarity of their 5-word shingles with a
    standard error under 0.045. A text of fewer than 5 words gets a row of its own bytes.
    """
    return np.concatenate([_sketch_block(texts[part]) for part in blocks(texts)])


def _sketch_block(texts: Sequence[bytes]) -> NDArray[np.uint32]:
    hashes, owner = document_shingles(texts, NEAR_WORDS)
    bins = np.full(len(texts) * SKETCH_BINS, _EMPTY)
    place = owner * SKETCH_BINS + (hashes >> np.uint64(57)).astype(np.int64)
    np.minimum.at(bins, place, (hashes >> np.uint64(25)).astype(np.uint32))
    table = bins.reshape(len(texts), SKETCH_BINS)
    for row in np.flatnonzero((table == _EMPTY).all(axis=1)).tolist():
        table[row] = _own_bytes(texts[row])
    return _densified(table)


def _own_bytes(text: bytes) -> NDArray[np.uint32]:
    raw = np.frombuffer(text, np.uint8)
    seed = (_BYTE_CODES[raw] * mix(np.arange(len(raw), dtype=np.uint64))).sum(dtype=np.uint64)
    return (mix(seed + np.arange(SKETCH_BINS, dtype=np.uint64)) >> np.uint64(33)).astype(np.uint32)


def _densified(table: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Empty bins borrow the next filled bin to the right, marked by its distance (Shrivastava, Li 2014)."""
    twice = np.concatenate([table, table], axis=1)
    places = np.where(twice == _EMPTY, 2 * SKETCH_BINS, np.arange(2 * SKETCH_BINS))
    nearest = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1][:, :SKETCH_BINS]
    distance = (nearest - np.arange(SKETCH_BINS)).astype(np.uint32)
    borrowed: NDArray[np.uint32] = np.take_along_axis(twice, nearest, axis=1)
    return borrowed + distance * np.uint32(0x9E3779B1)
