"""Encode each distinct word once: cut texts where byte-level BPE never merges, and look words up by hash.

Code and prose repeat their words, so this is about ten times faster than encoding every occurrence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.data.shingles import segment_hashes

Encode = Callable[[Sequence[str]], Iterable[NDArray[np.uint32]]]

_SPACE, _LETTER, _DIGIT, _APOSTROPHE, _SIGN, _CONTROL, _WIDE = range(7)


def _classes() -> NDArray[np.uint8]:
    table = np.full(256, _WIDE, np.uint8)
    table[:32] = table[127] = _CONTROL
    table[33:127] = _SIGN
    for byte in range(128):
        if chr(byte).isalpha():
            table[byte] = _LETTER
        elif chr(byte).isdigit():
            table[byte] = _DIGIT
    table[list(b" \t\n\r\v\f")] = _SPACE
    table[ord("'")] = _APOSTROPHE
    return table


def _cut_table() -> NDArray[np.bool_]:
    """[class before, class after]: whether GPT-2's pattern always ends a word there.

    Its words are runs of one class with at most one leading space, and contractions such as 's, so what
    follows an apostrophe is left alone. Non-ASCII letters, digits and signs are not told apart: no cut.
    """
    table = np.zeros((7, 7), bool)
    plain = [_LETTER, _DIGIT, _SIGN]
    for before in plain:
        table[before, [after for after in (*plain, _APOSTROPHE) if after != before]] = True
    table[_SIGN, _APOSTROPHE] = False
    table[[_LETTER, _DIGIT, _SIGN, _APOSTROPHE, _WIDE], _SPACE] = True
    return table


_CLASS = _classes()
_CUT = _cut_table()
_VISIBLE = np.isin(np.arange(7), [_LETTER, _DIGIT, _SIGN, _APOSTROPHE])


def word_starts(text: NDArray[np.uint8], document_starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True at bytes where a word may be cut off from what precedes it: [bytes].

    `text` [bytes] is valid UTF-8, documents end to end; a document's words do not depend on its neighbours.
    """
    kinds = _CLASS[text]
    starts = np.zeros(len(text), bool)
    starts[1:] = _CUT[kinds[:-1], kinds[1:]]
    # Of a run of spaces before a visible character, the last one belongs to what follows.
    starts[1:-1] |= (kinds[:-2] == _SPACE) & (kinds[1:-1] == _SPACE) & _VISIBLE[kinds[2:]]
    last = document_starts[document_starts > 1] - 1
    starts[last] &= (kinds[last] != _SPACE) | (kinds[last - 1] != _SPACE)
    starts[document_starts] = True
    return starts


def encode_by_words(raws: Sequence[bytes], encode: Encode) -> list[NDArray[np.uint32]]:
    """Tokens of each text [tokens], `encode` being called once with every distinct word."""
    text = np.frombuffer(b"".join(raws), np.uint8)
    ends = np.cumsum([0, *(len(raw) for raw in raws)])
    if not len(text):
        return [np.empty(0, np.uint32) for _ in raws]
    firsts = np.flatnonzero(word_starts(text, ends[:-1][ends[:-1] < len(text)]))
    # Two of a million words share a 64-bit hash with probability 3e-8.
    _, example, word = np.unique(segment_hashes(text, firsts), return_index=True, return_inverse=True)
    stops = np.append(firsts[1:], len(text))
    words = [
        text[first:stop].tobytes().decode()
        for first, stop in zip(firsts[example].tolist(), stops[example].tolist(), strict=True)
    ]
    tokens, counts = _expanded(list(encode(words)), word)
    upto = np.concatenate([[0], np.cumsum(counts)])[np.searchsorted(firsts, ends)]
    return [tokens[upto[index] : upto[index + 1]] for index in range(len(raws))]


def _expanded(
    encoded: list[NDArray[np.uint32]], word: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """All tokens of the sequence of words [tokens], and how many each word has [words]."""
    lengths = np.array([len(tokens) for tokens in encoded], np.int64)
    offsets = np.cumsum(lengths) - lengths
    counts = lengths[word]
    before = np.cumsum(counts) - counts
    places = np.repeat(offsets[word] - before, counts) + np.arange(counts.sum())
    return np.concatenate(encoded)[places], counts
