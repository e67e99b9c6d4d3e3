"""From a corpus and a tokenizer to a folder of token shards, once; and finding that folder again."""

from __future__ import annotations

import json
import shlex
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.data.clean import FACTS, Progress, clean
from harness.data.corpus import CorpusConfig, CorpusKind, fingerprint
from harness.data.durable import disk_errors_explained, filling, locked, publish, read_json, write_json
from harness.data.encode import Labels, training_sample, write_tokens
from harness.data.manifest import CleanedFacts, digest, read_manifest
from harness.data.shards import TokenStore
from harness.data.tokenizer import Tokenizer, TokenizerConfig, TokenizerKind, load_tokenizer, train_bpe
from harness.errors import CannotAnswer, WrongInput
from harness.override import override

# Raise when the same sources would give other text or other tokens than before.
PIPELINE = 1


class Unprepared(CannotAnswer):
    """`prepare` never ran for these configs."""


@dataclass(frozen=True)
class Prepared:
    """Where the tokens are and what they are; `seconds` is the wall time of this call."""

    path: Path
    corpus_hash: str
    tokenizer_hash: str
    vocab_size: int
    train_tokens: int
    val_tokens: int
    train_bytes: int
    val_bytes: int
    leak: float
    naive_leak: float
    drops: dict[str, int]
    seconds: float
    cached: bool


def prepare(corpus: CorpusConfig, tokenizer: TokenizerConfig, data_dir: Path, progress: Progress) -> Prepared:
    """Clean, tokenize and store the corpus below `data_dir`, or find that this was already done.

    `progress` gets (stage, done, total); the total is None where it is not known beforehand.
    """
    began = time.perf_counter()
    data_dir = Path(data_dir)
    sources = fingerprint(corpus)
    pointer = _pointer(corpus, tokenizer, data_dir)
    path = _usable(pointer, sources, data_dir)
    cached = path is not None
    if path is None:
        with disk_errors_explained(data_dir), _alone(pointer, progress):
            # Another process may have done the work while this one waited.
            path = _usable(pointer, sources, data_dir) or _prepare(
                corpus, tokenizer, data_dir, sources, progress
            )
            write_json(pointer, {"tokens": path.name, "sources": sources})
    return _described(path, time.perf_counter() - began, cached)


def find(corpus: CorpusConfig, tokenizer: TokenizerConfig, data_dir: Path) -> Prepared:
    """What `prepare` stored for these configs, read from two small files; Unprepared if it never ran."""
    began = time.perf_counter()
    target = read_json(_pointer(corpus, tokenizer, Path(data_dir)))
    if target is None or not (path := Path(data_dir) / "tokens" / str(target.get("tokens"))).is_dir():
        raise Unprepared(
            f"corpus {corpus.name} with tokenizer {tokenizer.name} is not prepared below {data_dir}: "
            f"run `{_command(corpus, tokenizer, data_dir)}`"
        )
    return _described(path, time.perf_counter() - began, cached=True)


def _command(corpus: CorpusConfig, tokenizer: TokenizerConfig, data_dir: Path) -> str:
    """What to type, as far as names and places tell."""
    shipped = corpus.kind is CorpusKind.pysource
    words = (
        [("corpus", corpus.name)]
        if shipped
        else [("corpus", corpus.kind.value), ("corpus.name", corpus.name)]
    )
    words += [("tokenizer", tokenizer.name)]
    words += [("corpus.path", corpus.path)] if corpus.path else []
    words += [("data_dir", str(data_dir))] if Path(data_dir) != Path("data") else []
    return shlex.join(["harness", "prepare", *(override(*word) for word in words)])


def _described(path: Path, seconds: float, cached: bool) -> Prepared:
    manifest = read_manifest(path)
    return Prepared(
        path=path,
        corpus_hash=manifest.corpus_hash,
        tokenizer_hash=manifest.tokenizer_hash,
        vocab_size=manifest.vocab_size,
        train_tokens=manifest.tokens["train"],
        val_tokens=manifest.tokens["val"],
        train_bytes=manifest.text_bytes["train"],
        val_bytes=manifest.text_bytes["val"],
        leak=manifest.cleaned.leak,
        naive_leak=manifest.cleaned.naive_leak,
        drops=manifest.cleaned.drops,
        seconds=seconds,
        cached=cached,
    )


def _plain(config: CorpusConfig | TokenizerConfig) -> dict[str, Any]:
    """The config as JSON holds it, a local path made absolute."""
    values = {k: v.value if isinstance(v, Enum) else v for k, v in asdict(config).items()}
    if values.get("path") and Path(values["path"]).expanduser().exists():
        values["path"] = str(Path(values["path"]).expanduser().resolve())
    return values


def _key(*configs: CorpusConfig | TokenizerConfig) -> str:
    return digest({"pipeline": PIPELINE, "configs": [_plain(config) for config in configs]})[:16]


def _pointer(corpus: CorpusConfig, tokenizer: TokenizerConfig, data_dir: Path) -> Path:
    return data_dir / "prepared" / f"{corpus.name}-{tokenizer.name}-{_key(corpus, tokenizer)}.json"


def _alone(pointer: Path, progress: Progress) -> AbstractContextManager[None]:
    """Hold the lock of one pointer: a second `prepare` of the same thing waits, then finds it done."""
    return locked(pointer.with_suffix(".lock"), lambda: progress("waiting for another prepare", 0, None))


def _usable(pointer: Path, sources: str, data_dir: Path) -> Path | None:
    """The token folder of an earlier `prepare` of the same sources, if it is whole."""
    target = read_json(pointer)
    if target is None or target.get("sources") != sources:
        return None
    path = data_dir / "tokens" / str(target.get("tokens"))
    try:
        TokenStore.open(path)
    except (CannotAnswer, WrongInput):
        return None
    return path


def _prepare(
    corpus: CorpusConfig, tokenizer: TokenizerConfig, data_dir: Path, sources: str, progress: Progress
) -> Path:
    text = _cleaned(corpus, data_dir, sources, progress)
    facts = CleanedFacts(**(read_json(text / FACTS) or {}))
    coder = _tokenizer(tokenizer, text, facts.corpus_hash, data_dir, progress)
    name = f"{corpus.name}-{tokenizer.name}-{digest({'of': [facts.corpus_hash, coder.hash]})[:16]}"
    labels = Labels(corpus.name, tokenizer.name, _packages(corpus))
    with filling(data_dir / "tokens" / f".partial-{_key(corpus, tokenizer)}") as partial:
        write_tokens(text, partial, coder, facts, labels, progress)
        publish(partial, data_dir / "tokens" / name)
    return data_dir / "tokens" / name


def _cleaned(corpus: CorpusConfig, data_dir: Path, sources: str, progress: Progress) -> Path:
    """The folder of the cleaned text, made now unless an earlier `prepare` left it."""
    pointer = data_dir / "prepared" / f"{corpus.name}-{_key(corpus)}.json"
    with _alone(pointer, progress):
        target = read_json(pointer) or {}
        known = data_dir / "corpora" / str(target.get("corpus"))
        if target.get("sources") == sources and read_json(known / FACTS):
            return known
        with filling(data_dir / "corpora" / f".partial-{_key(corpus)}") as partial:
            facts = clean(corpus, partial, progress)
            made = data_dir / "corpora" / f"{corpus.name}-{facts.corpus_hash[:16]}"
            publish(partial, made)
        write_json(pointer, {"corpus": made.name, "sources": sources})
    return made


def _tokenizer(
    config: TokenizerConfig, text: Path, corpus_hash: str, data_dir: Path, progress: Progress
) -> Tokenizer:
    """The tokenizer of this config, trained at most once for each corpus."""
    if config.kind is TokenizerKind.bytes:
        return Tokenizer(None)
    of = {"corpus": corpus_hash, "vocab_size": config.vocab_size, "train_bytes": config.train_bytes}
    path = data_dir / "tokenizers" / f"{config.name}-{digest({**of, 'pipeline': PIPELINE})[:16]}.json"
    if read_json(path) is not None:
        return load_tokenizer(path)
    progress("tokenizer", 0, None)
    trained = train_bpe(training_sample(text, config.train_bytes), config.vocab_size)
    write_json(path, json.loads(trained.model or "{}"))
    return load_tokenizer(path)


def _packages(corpus: CorpusConfig) -> dict[str, str]:
    """Versions of what the text is made of, or of what read it."""
    if corpus.kind is CorpusKind.pysource:
        from harness.data.pysource import package_versions

        return package_versions()
    return {name: version(name) for name in ("datasets", "numpy", "pyarrow", "tokenizers")}
