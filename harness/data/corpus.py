"""What a corpus is, and its documents as a stream of batches that worker processes can load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from harness.errors import WrongInput

BATCH_BYTES = 4 << 20


class CorpusKind(Enum):
    """Where the text comes from."""

    pysource = "pysource"
    text_dir = "text_dir"
    hf = "hf"


class TextView(Enum):
    """`pysource` only: whole files, or their docstrings and comments."""

    source = "source"
    prose = "prose"


@dataclass(kw_only=True)
class CorpusConfig:
    """One corpus; `path` is a folder for `text_dir`, a hub name or a local path for `hf`.

    `field` is the text column of .jsonl, .parquet and `hf` rows; `min_chars` drops shorter documents;
    `val_fraction` is the share of the text (in bytes) held out for validation.
    """

    name: str
    kind: CorpusKind
    path: str | None = None
    config_name: str | None = None
    split: str = "train"
    field: str = "text"
    streaming: bool = True
    view: TextView = TextView.source
    val_fraction: float = 0.02
    min_chars: int = 32
    max_documents: int | None = None

    def __post_init__(self) -> None:
        if not self.name or any(c in self.name for c in "/\\ \n") or self.name.startswith("."):
            raise ValueError(f"corpus.name={self.name!r} names folders: use letters, digits, - and _")
        if not 0 < self.val_fraction < 0.5:
            raise ValueError(f"corpus.val_fraction={self.val_fraction} must lie between 0 and 0.5")
        if self.min_chars < 1:
            raise ValueError(f"corpus.min_chars={self.min_chars} must be at least 1")
        if self.max_documents is not None and self.max_documents < 2:
            raise ValueError(f"corpus.max_documents={self.max_documents} must be at least 2 (train and val)")


@dataclass(frozen=True, slots=True)
class Document:
    """One text; documents of one `group` stay on one side of the split, "" stands for its own content."""

    name: str
    text: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The documents of one batch and how many were left out, by reason."""

    documents: list[Document]
    drops: dict[str, int] = field(default_factory=dict)


class Batch(Protocol):
    """A few megabytes of text, cheap to send to a worker process and loaded there."""

    def load(self) -> Loaded: ...


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Documents already read; `load` only drops the short ones."""

    documents: list[Document]
    min_chars: int

    def load(self) -> Loaded:
        return drop_short(self.documents, self.min_chars)


def drop_short(documents: list[Document], min_chars: int) -> Loaded:
    """Documents of at least `min_chars` characters, spaces at the ends not counted."""
    kept = [document for document in documents if len(document.text.strip()) >= min_chars]
    return Loaded(kept, {"short": len(documents) - len(kept)})


def in_batches(documents: Iterable[Document], min_chars: int) -> Iterator[TextBatch]:
    """Batches of about 4 MB of text, in order."""
    waiting: list[Document] = []
    size = 0
    for document in documents:
        waiting.append(document)
        size += len(document.text)
        if size >= BATCH_BYTES:
            yield TextBatch(waiting, min_chars)
            waiting, size = [], 0
    if waiting:
        yield TextBatch(waiting, min_chars)


def required_path(config: CorpusConfig) -> str:
    """The path of a `text_dir` or `hf` corpus; WrongInput when none is set."""
    if not config.path:
        raise WrongInput(f"corpus {config.name} ({config.kind.value}) needs a path: add corpus.path=...")
    return config.path


def batches(config: CorpusConfig) -> Iterator[Batch]:
    """The corpus as batches in a fixed order."""
    from harness.data import hub, pysource, text_dir

    match config.kind:
        case CorpusKind.pysource:
            yield from pysource.batches(config.view, config.min_chars, config.max_documents)
        case CorpusKind.text_dir:
            documents = text_dir.documents(required_path(config), config.field)
            yield from in_batches(_first(documents, config.max_documents), config.min_chars)
        case CorpusKind.hf:
            documents = hub.documents(
                required_path(config), config.config_name, config.split, config.field, config.streaming
            )
            yield from in_batches(_first(documents, config.max_documents), config.min_chars)


def fingerprint(config: CorpusConfig) -> str:
    """A cheap digest that changes when the sources do: names and sizes, versions or modification times."""
    from harness.data import hub, pysource, text_dir

    match config.kind:
        case CorpusKind.pysource:
            return pysource.fingerprint()
        case CorpusKind.text_dir:
            return text_dir.fingerprint(required_path(config))
        case CorpusKind.hf:
            return hub.fingerprint(required_path(config))


def _first(documents: Iterable[Document], limit: int | None) -> Iterator[Document]:
    for index, document in enumerate(documents):
        if index == limit:
            return
        yield document
