"""Sources to a cleaned corpus: store, drop duplicates, split, measure the leak and close it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.cleaned import (
    FATES,
    SKETCHES,
    Fate,
    RowGroup,
    corpus_hash,
    document_rows,
    document_sketches,
    fates,
    read_texts,
    row_groups,
    store_documents,
    write_listing,
)
from harness.data.corpus import CorpusConfig, batches
from harness.data.dedup import exact_duplicates, near_duplicates
from harness.data.durable import write_json
from harness.data.manifest import CleanedFacts
from harness.data.shingles import U64, mix
from harness.data.split import (
    ValidationShingles,
    collected,
    leaking_documents,
    sample_rate,
    sampled_shingles,
    seen,
    spread,
    validation_documents,
)
from harness.data.workers import ordered_map
from harness.errors import WrongInput

FACTS = "corpus.json"
Progress = Callable[[str, int, int | None], None]


def clean(config: CorpusConfig, folder: Path, progress: Progress) -> CleanedFacts:
    """Fill the empty `folder` with the cleaned corpus and return what is known about it.

    `progress` gets (stage, done, total); bytes of text for `read`, pieces of a few megabytes for `leak`.
    """
    drops = store_documents(folder, batches(config), lambda done: progress("read", done, None))
    rows = document_rows(folder)
    _refuse_few(config, len(rows), drops)
    progress("duplicates", 0, len(rows))
    fate = duplicates(rows, document_sketches(folder))
    kept = np.flatnonzero(fate == Fate.train)
    _refuse_few(config, len(kept), drops | _fates(fate), "distinct ")
    held_out = validation_documents(rows["group"][kept], rows["bytes"][kept], config.val_fraction)
    fate[kept[held_out]] = Fate.val
    np.save(folder / FATES, fate)
    by_file = mix(np.arange(len(rows), dtype=np.uint64))
    naive = validation_documents(by_file, rows["bytes"], config.val_fraction)
    leaky, before, leak, naive_leak = measure_leak(folder, rows, fate == Fate.val, naive, progress)
    fate[leaky] = Fate.leaky_validation
    _refuse_unsplit(config, fate)
    np.save(folder / FATES, fate)
    (folder / SKETCHES).unlink()
    drops.update(_fates(fate))
    facts = CleanedFacts(corpus_hash(rows, fate), leak, before, naive_leak, drops)
    write_listing(folder)
    write_json(folder / FACTS, asdict(facts))
    return facts


def duplicates(rows: NDArray[Any], sketches: NDArray[np.uint32]) -> NDArray[np.int8]:
    """Fates [documents]: exact and near duplicates of an earlier document, the others train."""
    fate = np.full(len(rows), Fate.train, np.int8)
    fate[exact_duplicates(rows["digest"])] = Fate.exact_duplicate
    distinct = np.flatnonzero(fate == Fate.train)
    fate[near_duplicates(sketches, distinct)] = Fate.near_duplicate
    return fate


def _fates(fate: NDArray[np.int8]) -> dict[str, int]:
    """How many documents were dropped, by reason."""
    return {f.name: int((fate == f).sum()) for f in Fate if f not in (Fate.train, Fate.val)}


def _refuse_few(config: CorpusConfig, count: int, drops: dict[str, int], kind: str = "") -> None:
    if count >= 2:
        return
    dropped = ", ".join(f"{reason} {number}" for reason, number in drops.items() if number) or "none"
    where = f" at {config.path}" if config.path else ""
    raise WrongInput(
        f"corpus {config.name}{where} has {count} {kind}documents of at least {config.min_chars} characters "
        f"(dropped: {dropped}): training and validation need at least 2; give more text or lower "
        "corpus.min_chars"
    )


def _refuse_unsplit(config: CorpusConfig, fate: NDArray[np.int8]) -> None:
    for split in (Fate.val, Fate.train):
        if not (fate == split).any():
            dropped = int((fate == Fate.leaky_validation).sum())
            raise WrongInput(
                f"corpus {config.name} leaves no {split.name} document of {len(fate)} ({dropped} validation "
                "documents repeat training text): give more text or raise corpus.val_fraction"
            )


@dataclass(frozen=True)
class _Held:
    """One way to split, as files a worker maps: which documents train, which hashes to look for."""

    trains: str
    hashes: str


def measure_leak(
    folder: Path,
    rows: NDArray[Any],
    held_out: NDArray[np.bool_],
    naive: NDArray[np.bool_],
    progress: Progress,
) -> tuple[NDArray[np.int64], float, float, float]:
    """Validation documents to drop, leak before and after dropping them, leak of the naive split."""
    groups = list(row_groups(folder))
    kept = fates(folder) <= Fate.val
    splits = [
        _shingled(folder, "split", rows, groups, held_out, kept & ~held_out),
        _shingled(folder, "naive", rows, groups, naive, ~naive),
    ]
    hits = [np.zeros(len(validation.hashes), bool) for validation, _ in splits]
    every = splits[0][0].every, splits[1][0].every
    jobs = [_Search(group, tuple(held for _, held in splits), every) for group in groups]
    for done, places in enumerate(ordered_map(_search, jobs), 1):
        for hit, place in zip(hits, places, strict=True):
            hit[place] = True
        progress("leak", done, len(jobs))
    measured = [
        leaking_documents(validation, spread(hit, validation.hashes))
        for (validation, _), hit in zip(splits, hits, strict=True)
    ]
    for file in folder.glob("leak-*.npy"):
        file.unlink()
    leaky, before, after = measured[0]
    return leaky, before, after, measured[1][1]


def _shingled(
    folder: Path,
    name: str,
    rows: NDArray[Any],
    groups: list[RowGroup],
    held_out: NDArray[np.bool_],
    trains: NDArray[np.bool_],
) -> tuple[ValidationShingles, _Held]:
    """Shingle the held-out documents and leave what the workers need beside the text."""
    every = sample_rate(int(rows["bytes"][held_out].sum()))
    parts = (_group_shingles(group, held_out, every) for group in groups)
    validation = collected(parts, every)
    held = _Held(*(str(folder / f"leak-{name}-{kind}.npy") for kind in ("trains", "hashes")))
    np.save(held.trains, trains)
    np.save(held.hashes, validation.hashes)
    return validation, held


def _group_shingles(
    group: RowGroup, held_out: NDArray[np.bool_], every: int
) -> tuple[U64, NDArray[np.int64]]:
    chosen = held_out[group.first : group.first + group.count]
    if not chosen.any():
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    _, texts = read_texts(group, chosen)
    hashes, owner = sampled_shingles([text.encode() for text in texts], every)
    return hashes, group.first + np.flatnonzero(chosen)[owner]


@dataclass(frozen=True)
class _Search:
    group: RowGroup
    splits: tuple[_Held, ...]
    every: tuple[int, ...]


def _search(job: _Search) -> list[NDArray[np.int64]]:
    """For each way to split, the places of its validation hashes that occur in this group's training text."""
    part = slice(job.group.first, job.group.first + job.group.count)
    _, texts = read_texts(job.group, np.ones(job.group.count, bool))
    hashes, owner = sampled_shingles([text.encode() for text in texts], min(job.every))
    return [
        seen(hashes[np.load(held.trains, mmap_mode="r")[part][owner]], np.load(held.hashes, mmap_mode="r"))
        for held in job.splits
    ]
