"""Small synthetic corpora: sentences of random words, so that texts repeat only what a test plants."""

import random
from pathlib import Path

from harness.data.corpus import CorpusConfig, CorpusKind
from harness.data.encode import Labels
from harness.data.manifest import SPLITS, CleanedFacts, Manifest, write_manifest
from harness.data.shards import ShardWriter, TokenStore

SYLLABLES = ["ka", "lo", "mi", "ten", "ru", "so", "pa", "ve", "dor", "ni"]


def prose(seed: int, words: int = 200) -> str:
    """Text that shares no 5-word shingle with another seed's, except by a fluke."""
    source = random.Random(seed)
    return " ".join("".join(source.choices(SYLLABLES, k=3)) for _ in range(words)) + "\n"


def text_dir(path: Path, **values) -> CorpusConfig:
    """A `text_dir` config with a tenth of the text held out."""
    return CorpusConfig(
        **{"name": "t", "kind": CorpusKind.text_dir, "path": str(path), "val_fraction": 0.1, **values}
    )


def silent(stage: str, done: int, total: int | None) -> None:
    """A progress callback that shows nothing."""


def write_store(path: Path, tokens: dict[str, list], vocab_size: int = 256, shard_bytes: int = 1 << 20):
    """A token store of the given arrays, one document a split."""
    path.mkdir(parents=True)
    writers = {split: ShardWriter(path, split, vocab_size, shard_bytes) for split in SPLITS}
    for split, values in tokens.items():
        writers[split].append(values, [len(values)], [f"{split} document"])
    shards = tuple(shard for split in SPLITS for shard in writers[split].finish())
    labels = Labels("c", "t", {})
    manifest = Manifest(
        corpus_name=labels.corpus,
        tokenizer_name=labels.tokenizer,
        tokenizer_hash="h",
        vocab_size=vocab_size,
        end_token=255,
        dtype=writers["train"].dtype.name,
        cleaned=CleanedFacts("c" * 64, 0.0, 0.0, 0.0, {}),
        tokens={split: sum(s.tokens for s in shards if s.split == split) for split in SPLITS},
        text_bytes=dict.fromkeys(SPLITS, 1),
        documents=dict.fromkeys(SPLITS, 1),
        shards=shards,
        packages={},
    )
    write_manifest(path, manifest)
    return TokenStore.open(path)
