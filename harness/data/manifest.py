"""What a folder of token shards says about itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from harness.data.durable import write_json
from harness.errors import CannotAnswer, WrongInput

MANIFEST = "manifest.json"
FORMAT = 1
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Shard:
    """One file of tokens; `documents` counts the documents that end in it, `size` is in bytes."""

    name: str
    split: str
    tokens: int
    documents: int
    size: int
    sha256: str


@dataclass(frozen=True)
class CleanedFacts:
    """What cleaning and splitting did: documents dropped by reason, leaks as fractions of shingles.

    `leak` is the share of 16-word shingles of the validation text that occur in the training text;
    `naive_leak` is that share for a random split by file with duplicates left in.
    """

    corpus_hash: str
    leak: float
    leak_before_drop: float
    naive_leak: float
    drops: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """Every hash, size and count of one folder of token shards; dictionaries are keyed by split."""

    corpus_name: str
    tokenizer_name: str
    tokenizer_hash: str
    vocab_size: int
    end_token: int
    dtype: str
    cleaned: CleanedFacts
    tokens: dict[str, int]
    text_bytes: dict[str, int]
    documents: dict[str, int]
    shards: tuple[Shard, ...]
    packages: dict[str, str]
    format: int = FORMAT

    @property
    def corpus_hash(self) -> str:
        """Hash of the training and validation text."""
        return self.cleaned.corpus_hash


def digest(payload: Mapping[str, Any]) -> str:
    """SHA-256 of an object's canonical JSON."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest and its own hash."""
    payload = asdict(manifest)
    write_json(folder / MANIFEST, {**payload, "sha256": digest(payload)})


def read_manifest(folder: Path) -> Manifest:
    """The manifest of `folder`; CannotAnswer when there is none, WrongInput when it was edited."""
    path = folder / MANIFEST
    try:
        payload = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CannotAnswer(f"no prepared tokens in {folder}: run `harness prepare`") from None
    except (OSError, ValueError):
        raise WrongInput(f"{path} is damaged: run `harness prepare` to write it again") from None
    if not isinstance(payload, dict) or payload.pop("sha256", None) != digest(payload):
        raise WrongInput(f"{path} was edited after it was written: run `harness prepare` to write it again")
    if payload.get("format") != FORMAT or set(payload) != {field.name for field in fields(Manifest)}:
        raise WrongInput(f"{path} has another format than this version reads: run `harness prepare`")
    payload["cleaned"] = CleanedFacts(**payload["cleaned"])
    payload["shards"] = tuple(Shard(**shard) for shard in payload["shards"])
    return Manifest(**payload)
