"""The cleaned text as token shards: encoded by worker processes, written in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.clean import Progress
from harness.data.cleaned import Fate, RowGroup, document_rows, fates, of_fate, read_texts, row_groups
from harness.data.manifest import SPLITS, CleanedFacts, Manifest, write_manifest
from harness.data.shards import BYTES_PER_TOKEN, TOKENIZER, ShardWriter
from harness.data.tokenizer import Tokenizer, load_tokenizer
from harness.data.workers import ordered_map


@dataclass(frozen=True, slots=True)
class Labels:
    """What the manifest says beside numbers: config names and the versions of what was read."""

    corpus: str
    tokenizer: str
    packages: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Job:
    group: RowGroup
    tokenizer: str


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Documents of one split: their tokens end to end, and [documents] lengths and names."""

    tokens: NDArray[Any]
    lengths: NDArray[np.int64]
    names: list[str]


def write_tokens(
    text: Path,
    folder: Path,
    tokenizer: Tokenizer,
    facts: CleanedFacts,
    labels: Labels,
    progress: Progress,
) -> None:
    """Encode both splits of the cleaned corpus `text` into `folder`; the manifest is written last.

    `progress` counts bytes of text.
    """
    tokenizer.save(folder / TOKENIZER)
    np.save(folder / BYTES_PER_TOKEN, tokenizer.bytes_per_token)
    rows, fate = document_rows(text), fates(text)
    writers = {split: ShardWriter(folder, split, tokenizer.vocab_size) for split in SPLITS}
    jobs = [_Job(group, str(folder / TOKENIZER)) for group in row_groups(text)]
    total, done = int(rows["bytes"].sum()), 0
    for job, encoded in zip(jobs, ordered_map(_encode, jobs), strict=True):
        for split, part in encoded.items():
            writers[split].append(part.tokens, part.lengths, part.names)
        done += int(rows["bytes"][job.group.first : job.group.first + job.group.count].sum())
        progress("tokens", done, total)
    shards = tuple(shard for split in SPLITS for shard in writers[split].finish())
    codes = {split: Fate[split] for split in SPLITS}
    manifest = Manifest(
        corpus_name=labels.corpus,
        tokenizer_name=labels.tokenizer,
        tokenizer_hash=tokenizer.hash,
        vocab_size=tokenizer.vocab_size,
        end_token=tokenizer.end_token,
        dtype=writers["train"].dtype.name,
        cleaned=facts,
        tokens={split: sum(s.tokens for s in shards if s.split == split) for split in SPLITS},
        text_bytes={split: int(rows["bytes"][fate == code].sum()) for split, code in codes.items()},
        documents={split: int((fate == code).sum()) for split, code in codes.items()},
        shards=shards,
        packages=labels.packages,
    )
    write_manifest(folder, manifest)


def _encode(job: _Job) -> dict[str, _Encoded]:
    return {split: _encode_split(job, Fate[split]) for split in SPLITS}


def _encode_split(job: _Job, fate: Fate) -> _Encoded:
    names, texts = read_texts(job.group, of_fate(job.group, fate))
    tokens = _loaded(job.tokenizer).encode_batch(texts)
    lengths = np.array([len(part) for part in tokens], np.int64)
    return _Encoded(np.concatenate([np.empty(0, np.uint16), *tokens]), lengths, names)


@lru_cache(maxsize=1)
def _loaded(path: str) -> Tokenizer:
    return load_tokenizer(Path(path))


def training_sample(text: Path, size: int) -> Iterator[str]:
    """Training documents of about `size` bytes in all, chosen by the hash of their text."""
    rows, fate = document_rows(text), fates(text)
    chosen = fate == Fate.train
    total = int(rows["bytes"][chosen].sum())
    if total > size:
        chosen &= rows["digest"][:, 1] < np.uint64(size / total * 2**64)
    for group in row_groups(text):
        wanted = np.asarray(chosen[group.first : group.first + group.count])
        if wanted.any():
            yield from read_texts(group, wanted)[1]
