"""Which documents validate, and how much of their text the training documents give away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.data.shingles import U64, blocks, document_shingles

LEAK_WORDS = 16
# A validation document that shares more of its 16-word shingles with train than this is dropped.
MAX_SHARED = 0.05
# Above this many validation shingles a fixed share of all hash values stands for the rest.
LEAK_SHINGLES = 4_000_000
_BYTES_PER_WORD = 6
MANY_DOCUMENTS = 4_000_000


def validation_documents(groups: U64, sizes: NDArray[np.int64], fraction: float) -> NDArray[np.bool_]:
    """True for the documents held out: whole groups in the order of their hash, `fraction` of the bytes.

    `groups` and `sizes` are [documents]. Groups larger than the target stay in train. At least one group
    is taken when there are two; with a single group nothing is. Very many documents are each decided by
    their hash alone, which needs no sorting.
    """
    if len(groups) > MANY_DOCUMENTS:
        return np.asarray(groups < np.uint64(fraction * 2**64))
    names, member = np.unique(groups, return_inverse=True)
    weights = np.bincount(member, weights=sizes)
    if len(names) < 2:
        return np.zeros(len(groups), bool)
    target = max(fraction * weights.sum(), weights.min())
    eligible = weights <= target
    filled = np.cumsum(np.where(eligible, weights, 0.0))
    taken = eligible & (filled <= target)
    if not taken.any():
        taken[np.argmax(eligible)] = True
    return np.asarray(taken[member])


@dataclass(frozen=True)
class ValidationShingles:
    """Validation shingles: sorted `hashes` [shingles], their documents `owner` [shingles], 1 in `every`."""

    hashes: U64
    owner: NDArray[np.int64]
    every: int


def sample_rate(val_bytes: int) -> int:
    """Keep one shingle hash value in this many."""
    return max(1, val_bytes // (_BYTES_PER_WORD * LEAK_SHINGLES))


def sampled_shingles(texts: Sequence[bytes], every: int) -> tuple[U64, NDArray[np.int64]]:
    """16-word shingles whose hash is a multiple of `every`, and the text each lies in."""
    hashes, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for part in blocks(texts):
        block, owner = document_shingles(texts[part], LEAK_WORDS)
        chosen = block % np.uint64(every) == 0 if every > 1 else slice(None)
        hashes.append(block[chosen])
        owners.append(owner[chosen] + part.start)
    return np.concatenate(hashes), np.concatenate(owners)


def collected(parts: Iterable[tuple[U64, NDArray[np.int64]]], every: int) -> ValidationShingles:
    """Shingles of all validation documents with their document numbers, in the order of hashes."""
    listed = list(parts)
    hashes = np.concatenate([np.empty(0, np.uint64), *(hashes for hashes, _ in listed)])
    owner = np.concatenate([np.empty(0, np.int64), *(owner for _, owner in listed)])
    order = np.argsort(hashes, kind="stable")
    return ValidationShingles(hashes[order], owner[order], every)


def seen(shingles: U64, known: U64) -> NDArray[np.int64]:
    """Places in the sorted `known` whose hash occurs among `shingles` (first place of equal hashes)."""
    if not len(known) or not len(shingles):
        return np.empty(0, np.int64)
    # A table that fits in cache turns most hashes away before the binary search.
    maybe = np.zeros(1 << 22, bool)
    maybe[known >> np.uint64(42)] = True
    shingles = shingles[maybe[shingles >> np.uint64(42)]]
    place = np.minimum(np.searchsorted(known, shingles), len(known) - 1)
    return np.unique(place[known[place] == shingles])


def spread(first_places: NDArray[np.bool_], known: U64) -> NDArray[np.bool_]:
    """Mark every equal hash of the sorted `known` where its first place is marked."""
    if not len(known):
        return first_places
    starts = np.flatnonzero(np.concatenate([[True], known[1:] != known[:-1]]))
    return np.repeat(first_places[starts], np.diff(starts, append=len(known)))


def leaking_documents(
    validation: ValidationShingles, hit: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], float, float]:
    """Documents to drop, the leak before and the leak after dropping them (fractions of shingles)."""
    if not len(hit):
        return np.empty(0, np.int64), 0.0, 0.0
    documents, member = np.unique(validation.owner, return_inverse=True)
    total = np.bincount(member)
    shared = np.bincount(member, weights=hit)
    leaky = shared > MAX_SHARED * total
    kept = total[~leaky].sum()
    after = float(shared[~leaky].sum() / kept) if kept else 0.0
    return documents[leaky], float(hit.mean()), after
