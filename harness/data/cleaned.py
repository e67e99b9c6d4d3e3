"""The cleaned corpus on disk: text stored once in parquet row groups, and what became of each document."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.corpus import Batch
from harness.data.shingles import SKETCH_BINS, sketches
from harness.data.workers import ordered_map

PART_BYTES = 1 << 29
DOCUMENTS, SKETCHES, FATES = "documents.bin", "sketches.bin", "fates.npy"
LISTING = "documents.tsv"
# One row a document: SHA-256 of the text, hash of its group, bytes of UTF-8.
DOCUMENT_ROW = np.dtype([("digest", "<u8", (4,)), ("group", "<u8"), ("bytes", "<i8")])


class Fate(IntEnum):
    """What became of a document."""

    train = 0
    val = 1
    exact_duplicate = 2
    near_duplicate = 3
    leaky_validation = 4


@dataclass(frozen=True, slots=True)
class Ingested:
    """One batch, read and hashed: `rows` [documents] of DOCUMENT_ROW, `sketches` [documents, bins]."""

    names: list[str]
    texts: list[str]
    rows: NDArray[Any]
    sketches: NDArray[np.uint32]
    drops: dict[str, int]


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A few megabytes of the stored text: documents first..first + count."""

    folder: str
    part: str
    index: int
    first: int
    count: int


def ingest(batch: Batch) -> Ingested:
    """Read one batch and compute everything later stages need besides the text."""
    loaded = batch.load()
    raws = [document.text.encode() for document in loaded.documents]
    rows = np.empty(len(raws), DOCUMENT_ROW)
    for index, (raw, document) in enumerate(zip(raws, loaded.documents, strict=True)):
        digest = hashlib.sha256(raw).digest()
        group = hashlib.sha256(document.group.encode()).digest() if document.group else digest
        rows[index] = (np.frombuffer(digest, "<u8"), np.frombuffer(group[:8], "<u8")[0], len(raw))
    table = sketches(raws) if raws else np.empty((0, SKETCH_BINS), np.uint32)
    names, texts = [d.name for d in loaded.documents], [d.text for d in loaded.documents]
    return Ingested(names, texts, rows, table, loaded.drops)


def store_documents(
    folder: Path, batches: Iterable[Batch], progress: Callable[[int], None]
) -> dict[str, int]:
    """Write every document of `batches` below `folder`, one row group a batch; returns drops by reason.

    `progress` is told the bytes of text stored so far.
    """
    drops: Counter[str] = Counter()
    stored = 0
    parts = _Parts(folder)
    with (folder / DOCUMENTS).open("wb") as documents, (folder / SKETCHES).open("wb") as table:
        try:
            for batch in ordered_map(ingest, batches):
                drops.update(batch.drops)
                if not batch.texts:
                    continue
                size = int(batch.rows["bytes"].sum())
                parts.write(batch.names, batch.texts, size)
                documents.write(batch.rows.tobytes())
                table.write(batch.sketches.tobytes())
                stored += size
                progress(stored)
        finally:
            parts.close()
    return dict(drops)


class _Parts:
    """Parquet files of at most about `PART_BYTES` of text, one row group a call of `write`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._count = self._size = 0

    def write(self, names: list[str], texts: list[str], size: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({"name": pa.array(names, pa.string()), "text": pa.array(texts, pa.large_string())})
        if self._writer is None:
            path = self._folder / f"part-{self._count:05d}.parquet"
            self._writer = pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False)
            self._count += 1
        self._writer.write_table(table, row_group_size=len(names))
        self._size += size
        if self._size >= PART_BYTES:
            self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer, self._size = None, 0


def document_rows(folder: Path) -> NDArray[Any]:
    """The table of all documents: [documents] of DOCUMENT_ROW, mapped."""
    path = folder / DOCUMENTS
    return np.memmap(path, DOCUMENT_ROW, "r") if path.stat().st_size else np.empty(0, DOCUMENT_ROW)


def document_sketches(folder: Path) -> NDArray[np.uint32]:
    """The MinHash sketches of all documents: [documents, SKETCH_BINS], mapped."""
    return np.memmap(folder / SKETCHES, np.uint32, "r").reshape(-1, SKETCH_BINS)


def fates(folder: Path) -> NDArray[np.int8]:
    """The fate of every document: [documents], mapped."""
    table: NDArray[np.int8] = np.load(folder / FATES, mmap_mode="r")
    return table


def row_groups(folder: Path) -> Iterator[RowGroup]:
    """The stored text in order, in pieces of a few megabytes."""
    import pyarrow.parquet as pq

    first = 0
    for path in sorted(folder.glob("part-*.parquet")):
        metadata = pq.read_metadata(path)
        for index in range(metadata.num_row_groups):
            count = metadata.row_group(index).num_rows
            yield RowGroup(str(folder), path.name, index, first, count)
            first += count


def write_listing(folder: Path) -> None:
    """documents.tsv: name, SHA-256 and bytes of every document, and what became of it."""
    import pyarrow.parquet as pq

    rows, fate = document_rows(folder), fates(folder)
    with (folder / LISTING).open("w", encoding="utf-8") as file:
        file.write("name\tsha256\tbytes\tfate\n")
        for group in row_groups(folder):
            with pq.ParquetFile(folder / group.part) as part:
                names = part.read_row_group(group.index, columns=["name"]).column("name").to_pylist()
            for at, name in enumerate(names, start=group.first):
                plain = " ".join(name.split())
                digest = rows["digest"][at].tobytes().hex()
                file.write(f"{plain}\t{digest}\t{rows['bytes'][at]}\t{Fate(fate[at]).name}\n")


def read_texts(group: RowGroup, chosen: NDArray[np.bool_]) -> tuple[list[str], list[str]]:
    """Names and texts of the chosen documents of a row group; `chosen` is [group.count]."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(Path(group.folder) / group.part) as file:
        table = file.read_row_group(group.index, use_threads=False).filter(pa.array(chosen))
    return table.column("name").to_pylist(), table.column("text").to_pylist()


def of_fate(group: RowGroup, fate: Fate) -> NDArray[np.bool_]:
    """Which documents of a row group met this fate: [group.count]."""
    return np.asarray(fates(Path(group.folder))[group.first : group.first + group.count] == fate)


def corpus_hash(rows: NDArray[Any], fate: NDArray[np.int8]) -> str:
    """SHA-256 over the SHA-256 of every training text, then of every validation text, in order."""
    digest = hashlib.sha256()
    for split in (Fate.train, Fate.val):
        digest.update(split.name.encode())
        digest.update(rows["digest"][fate == split].tobytes())
    return digest.hexdigest()
