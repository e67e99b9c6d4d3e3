"""Bytes or byte-level BPE: lossless both ways, every document closed by an end-of-document token.

The end-of-document token is the byte 0xFF, which UTF-8 never uses: it costs no extra vocabulary entry,
cannot be confused with text, and counts as 0 bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.words import encode_by_words
from harness.errors import CannotAnswer, WrongInput

END_BYTE = 0xFF
# An Encoding of `tokenizers` holds some 150 bytes a token, so only this much is encoded at a time.
PIECE_CHARS = 1 << 18
_BYTES_MODEL = "bytes: token i is byte i, 255 ends a document"


class TokenizerKind(Enum):
    """How text becomes tokens."""

    bytes = "bytes"
    bpe = "bpe"


@dataclass(kw_only=True)
class TokenizerConfig:
    """`vocab_size` counts the 256 bytes; BPE is trained on `train_bytes` of the training split."""

    name: str
    kind: TokenizerKind
    vocab_size: int = 256
    train_bytes: int = 20_000_000

    def __post_init__(self) -> None:
        if not self.name or any(c in self.name for c in "/\\ \n") or self.name.startswith("."):
            raise ValueError(f"tokenizer.name={self.name!r} names folders: use letters, digits, - and _")
        if self.kind is TokenizerKind.bytes and self.vocab_size != 256:
            raise ValueError(f"tokenizer.vocab_size={self.vocab_size} must be 256 for kind=bytes")
        if self.kind is TokenizerKind.bpe and not 256 < self.vocab_size <= 1 << 20:
            raise ValueError(f"tokenizer.vocab_size={self.vocab_size} must lie between 257 and 1048576")
        if self.train_bytes < 1:
            raise ValueError(f"tokenizer.train_bytes={self.train_bytes} must be at least 1")


def _character_of_byte() -> list[str]:
    """The printable character that byte-level BPE writes for each byte (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest of uint16 and uint32 that holds every token."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


class Tokenizer:
    """Text to tokens and back; `model` is None for bytes, else the JSON of a byte-level BPE."""

    def __init__(self, model: str | None) -> None:
        self.model = model
        self._token_bytes = _bpe_token_bytes(model) if model else [bytes([byte]) for byte in range(256)]
        self.vocab_size = len(self._token_bytes)
        self.end_token = self._token_bytes.index(bytes([END_BYTE]))
        self.hash = hashlib.sha256((model or _BYTES_MODEL).encode()).hexdigest()
        lengths = np.array([len(token) for token in self._token_bytes], np.uint16)
        lengths[self.end_token] = 0
        self.bytes_per_token: NDArray[np.uint16] = lengths

    @cached_property
    def _bpe(self) -> Any:
        from tokenizers import Tokenizer as Bpe

        return Bpe.from_str(self.model or "")

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """Tokens of each text, the end-of-document token last: arrays [tokens + 1]."""
        dtype = token_dtype(self.vocab_size)
        end = np.array([self.end_token], dtype)
        raws = [text.encode() for text in texts]
        if self.model is None:
            return [np.append(np.frombuffer(raw, np.uint8).astype(dtype), end) for raw in raws]
        return [np.append(tokens.astype(dtype), end) for tokens in encode_by_words(raws, self._encode_words)]

    def _encode_words(self, words: Sequence[str]) -> Iterator[NDArray[np.uint32]]:
        waiting: list[str] = []
        size = 0
        for word in words:
            waiting.append(word)
            size += len(word)
            if size >= PIECE_CHARS:
                yield from self._encode(waiting)
                waiting, size = [], 0
        yield from self._encode(waiting)

    def _encode(self, words: list[str]) -> list[NDArray[np.uint32]]:
        encodings = self._bpe.encode_batch_fast(words, add_special_tokens=False)
        return [np.array(encoding.ids, np.uint32) for encoding in encodings]

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        """The text of `ids`; end-of-document tokens vanish, half a character becomes U+FFFD."""
        tokens = [int(token) for token in ids]
        if tokens and not 0 <= min(tokens) <= max(tokens) < self.vocab_size:
            raise WrongInput(
                f"token {max(tokens)} is outside the vocabulary of {self.vocab_size}: wrong tokenizer?"
            )
        raw = b"".join(self._token_bytes[token] for token in tokens if token != self.end_token)
        return raw.decode("utf-8", errors="replace")

    def save(self, path: Path) -> None:
        """Write the model as JSON."""
        path.write_text(self.model or json.dumps({"bytes": _BYTES_MODEL}), encoding="utf-8")


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer saved at `path`; CannotAnswer when there is none, WrongInput when it is damaged."""
    try:
        text = path.read_text(encoding="utf-8")
        return Tokenizer(None if "bytes" in json.loads(text) else text)
    except FileNotFoundError:
        raise CannotAnswer(f"no tokenizer at {path}: run `harness prepare`") from None
    except (ValueError, KeyError, TypeError):
        raise WrongInput(f"tokenizer {path} is damaged: delete it and run `harness prepare`") from None


def _bpe_token_bytes(model: str) -> list[bytes]:
    """The bytes of every token, in the order of ids."""
    byte_of = {character: byte for byte, character in enumerate(_character_of_byte())}
    vocabulary: dict[str, int] = json.loads(model)["model"]["vocab"]
    ordered = sorted(vocabulary, key=lambda token: vocabulary[token])
    return [bytes(byte_of[character] for character in token) for token in ordered]


def train_bpe(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE with `vocab_size` tokens in all, or fewer when the texts run out of pairs."""
    from tokenizers import Tokenizer as Bpe
    from tokenizers import decoders, models, pre_tokenizers, trainers

    bpe = Bpe(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        # A run of one character is no word; uint16 lengths and cheap encoding want tokens of bounded size.
        max_token_length=64,
    )
    bpe.train_from_iterator(texts, trainer=trainer)
    return Tokenizer(bpe.to_str())
