"""Token shards on disk: a bounded writer, and a memory-mapped store that reads across shards.

A shard `train-00000.bin` holds raw tokens; `train-00000.ends.npy` holds the position after each document
that ends in that shard, counted from the shard's first token. Documents may cross shards.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from harness.data.manifest import MANIFEST, Manifest, Shard, read_manifest
from harness.data.tokenizer import token_dtype
from harness.errors import CannotAnswer, WrongInput

SHARD_BYTES = 1 << 28
TOKENIZER = "tokenizer.json"
BYTES_PER_TOKEN = "bytes_per_token.npy"
Tokens = NDArray[Any]


class ShardWriter:
    """Appends the documents of one split to shards of at most `shard_bytes`."""

    def __init__(self, folder: Path, split: str, vocab_size: int, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.split, self.vocab_size = folder, split, vocab_size
        self.dtype = token_dtype(vocab_size)
        self.capacity = shard_bytes // self.dtype.itemsize
        self.shards: list[Shard] = []
        self._stream: IO[bytes] | None = None

    def append(self, tokens: Tokens, lengths: NDArray[np.int64], names: Sequence[str]) -> None:
        """Add documents: all their tokens [sum(lengths)], each one's length and name [documents]."""
        ends = np.cumsum(lengths)
        self._check(tokens, ends, names)
        done = 0
        while done < len(tokens):
            self._open()
            part = slice(done, done + self.capacity - self._filled)
            self._write(tokens[part], ends[(ends > part.start) & (ends <= part.stop)] - done)
            done += len(tokens[part])
            if self._filled == self.capacity:
                self._close()

    def finish(self) -> list[Shard]:
        """Close the last shard and return all of them."""
        self._close()
        return self.shards

    def _check(self, tokens: Tokens, ends: NDArray[np.int64], names: Sequence[str]) -> None:
        outside = np.flatnonzero((tokens < 0) | (tokens >= self.vocab_size))
        if len(outside):
            name = names[int(np.searchsorted(ends, outside[0], side="right"))]
            raise WrongInput(
                f"document {name} has token {tokens[outside[0]]} outside the vocabulary of "
                f"{self.vocab_size}: the tokenizer does not fit; delete it and run `harness prepare`"
            )

    @property
    def _name(self) -> str:
        return f"{self.split}-{len(self.shards):05d}"

    def _open(self) -> None:
        if self._stream is None:
            self._stream = (self.folder / f"{self._name}.bin").open("wb")
            self._hash, self._filled, self._ends = hashlib.sha256(), 0, list[NDArray[np.int64]]()

    def _write(self, tokens: Tokens, ends: NDArray[np.int64]) -> None:
        raw = np.ascontiguousarray(tokens, self.dtype).tobytes()
        assert self._stream is not None
        self._stream.write(raw)
        self._hash.update(raw)
        self._ends.append(ends + self._filled)
        self._filled += len(tokens)

    def _close(self) -> None:
        if self._stream is None:
            return
        stream, self._stream = self._stream, None
        with stream:
            stream.flush()
            os.fsync(stream.fileno())
        ends = np.concatenate(self._ends).astype(np.uint64)
        np.save(self.folder / f"{self._name}.ends.npy", ends)
        size = self._filled * self.dtype.itemsize
        name = f"{self._name}.bin"
        self.shards.append(Shard(name, self.split, self._filled, len(ends), size, self._hash.hexdigest()))


class TokenStream:
    """The tokens of one split as one sequence over its memory-mapped shards."""

    def __init__(self, shards: Sequence[Tokens], dtype: np.dtype[Any]) -> None:
        self._shards = list(shards)
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])
        self.dtype = dtype
        self._views: dict[tuple[int, int], Tokens] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, part: slice) -> Tokens:
        """A stretch of tokens [stop - start]: a view within one shard, a copy across shards."""
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError("a token stream is sliced with step 1")
        pieces = [
            shard[max(start - first, 0) : stop - first]
            for shard, first in zip(self._shards, self._starts[:-1].tolist(), strict=True)
            if start < first + len(shard) and stop > first
        ]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, self.dtype)

    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Stretches of `length` tokens from each of `starts`: [len(starts), length]."""
        if len(self._shards) == 1:
            return self._rows_of(0, length)[starts].astype(np.int64)
        rows = np.empty((len(starts), length), np.int64)
        shard = np.searchsorted(self._starts, starts, side="right") - 1
        inside = starts + length <= self._starts[np.minimum(shard + 1, len(self._shards))]
        for index in np.unique(shard[inside]).tolist():
            chosen = inside & (shard == index)
            rows[chosen] = self._rows_of(index, length)[starts[chosen] - self._starts[index]]
        for row in np.flatnonzero(~inside).tolist():
            rows[row] = self[int(starts[row]) : int(starts[row]) + length]
        return rows

    def _rows_of(self, index: int, length: int) -> Tokens:
        """Every stretch of `length` tokens of one shard, as an overlapping view [stretches, length].

        Its rows are copied whole, several times faster than an index per token.
        """
        if (index, length) not in self._views:
            # A plain array on the same memory: indexing a memmap costs ten times as much.
            plain = self._shards[index].view(np.ndarray)
            self._views[index, length] = np.lib.stride_tricks.sliding_window_view(plain, length)
        return self._views[index, length]


class TokenStore:
    """A prepared folder of tokens, opened for reading."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def open(cls, path: Path) -> TokenStore:
        """Check the manifest and the size of every file; WrongInput names the damaged one."""
        path = Path(path)
        manifest = read_manifest(path)
        for shard in manifest.shards:
            file = path / shard.name
            size = file.stat().st_size if file.exists() else 0
            if size != shard.size:
                raise WrongInput(
                    f"shard {file} has {size} bytes, its manifest says {shard.size}: "
                    "run `harness prepare` again"
                )
        return cls(path, manifest)

    def verify(self) -> None:
        """Read every shard and compare its SHA-256; WrongInput names the one that differs."""
        for shard in self.manifest.shards:
            with (self.path / shard.name).open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != shard.sha256:
                raise WrongInput(
                    f"shard {self.path / shard.name} differs from its manifest's hash: delete {self.path} "
                    "and run `harness prepare`"
                )

    def count(self, split: str) -> int:
        """Tokens in `train` or `val`."""
        return self.manifest.tokens[split]

    def tokens(self, split: str) -> TokenStream:
        """The tokens of `train` or `val`, mapped and not read."""
        dtype = np.dtype(self.manifest.dtype)
        return TokenStream([np.memmap(file, dtype, "r") for file in self._files(split)], dtype)

    def document_ends(self, split: str) -> NDArray[np.uint64]:
        """Position in the split after each document: [documents]."""
        starts = np.cumsum([0, *(shard.tokens for shard in self._of(split))])
        parts = [np.load(file.with_suffix(".ends.npy")) for file in self._files(split)]
        shifted = [part + np.uint64(start) for part, start in zip(parts, starts[:-1], strict=True)]
        return np.concatenate([np.empty(0, np.uint64), *shifted])

    @cached_property
    def bytes_per_token(self) -> NDArray[np.uint16]:
        """UTF-8 bytes of each token of the vocabulary: [vocab_size]; 0 for the end of a document."""
        try:
            lengths: NDArray[np.uint16] = np.load(self.path / BYTES_PER_TOKEN)
        except (OSError, ValueError):
            raise WrongInput(
                f"{self.path / BYTES_PER_TOKEN} is damaged: run `harness prepare` again"
            ) from None
        return lengths

    def _of(self, split: str) -> list[Shard]:
        if split not in self.manifest.tokens:
            raise CannotAnswer(f"{self.path / MANIFEST} has no split {split!r}: use train or val")
        return [shard for shard in self.manifest.shards if shard.split == split]

    def _files(self, split: str) -> list[Path]:
        return [self.path / shard.name for shard in self._of(split)]
