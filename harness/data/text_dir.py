"""Text files under a folder as documents: .txt, .jsonl and .parquet, in the order of their paths."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from harness.data.corpus import Document
from harness.errors import WrongInput

SUFFIXES = (".txt", ".jsonl", ".parquet")
# A .txt file is read in pieces cut at line ends, so that a corpus may be one file of any size.
PIECE_CHARS = 1 << 16


def files(folder: Path) -> list[Path]:
    """Text files below `folder`, sorted by path; WrongInput when there is no such folder or no such file."""
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "does not exist"
        raise WrongInput(f"corpus folder {folder} {wrong}: set corpus.path to a folder of text files")
    found = [path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()]
    if not found:
        raise WrongInput(f"corpus folder {folder} holds no {', '.join(SUFFIXES)} file: set corpus.path")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def documents(path: str, field: str) -> Iterator[Document]:
    """Every document below the folder `path`, named by file and line, row or piece."""
    folder = Path(path).expanduser()
    for file in files(folder):
        name = raw_name(file, folder).decode("utf-8", "replace")
        try:
            yield from _read(file, name, field)
        except UnicodeDecodeError as error:
            raise WrongInput(f"{file} is not valid UTF-8 ({error.reason}): convert or remove it") from None
        except OSError as error:
            raise WrongInput(f"{file} cannot be read ({_first_line(error)}): repair or remove it") from None


def raw_name(file: Path, folder: Path) -> bytes:
    """The relative path as the file system has it, which need not be UTF-8."""
    return os.fsencode(file.relative_to(folder).as_posix())


def _read(file: Path, name: str, field: str) -> Iterator[Document]:
    match file.suffix:
        case ".txt":
            return _read_txt(file, name)
        case ".jsonl":
            return _read_jsonl(file, name, field)
        case _:
            return _read_parquet(file, name, field)


def _read_txt(file: Path, name: str) -> Iterator[Document]:
    with file.open(encoding="utf-8", newline="") as stream:
        rest, index = "", 0
        while chunk := stream.read(PIECE_CHARS):
            rest += chunk
            if len(rest) > PIECE_CHARS:
                cut = _line_end(rest)
                yield Document(f"{name}#{index}", rest[:cut])
                rest, index = rest[cut:], index + 1
        if rest:
            yield Document(f"{name}#{index}" if index else name, rest)


def _line_end(text: str) -> int:
    """Where to cut the first `PIECE_CHARS` characters of `text`: after a paragraph, a line, or anywhere."""
    half = PIECE_CHARS // 2
    for mark in ("\n\n", "\n"):
        at = text.rfind(mark, half, PIECE_CHARS)
        if at >= 0:
            return at + len(mark)
    return PIECE_CHARS


def _read_jsonl(file: Path, name: str, field: str) -> Iterator[Document]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield Document(f"{name}:{number}", _jsonl_text(line, f"{file}:{number}", field))


def _jsonl_text(line: bytes, where: str, field: str) -> str:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise WrongInput(f"{where} is not valid UTF-8 ({error.reason}): convert or remove the line") from None
    except ValueError as error:
        raise WrongInput(f"{where} is not JSON ({error}): repair or remove the line") from None
    if not isinstance(row, dict) or field not in row:
        raise WrongInput(f"{where} has no field {field!r}: set corpus.field to the field that holds the text")
    return checked_text(row[field], where, field)


def checked_text(text: object, where: str, field: str) -> str:
    """`text` if it is a string that UTF-8 can hold, else WrongInput naming `where`."""
    if not isinstance(text, str):
        raise WrongInput(f"{where}: field {field!r} holds {type(text).__name__}, not text: set corpus.field")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise WrongInput(f"{where}: field {field!r} holds half a surrogate pair: repair the line") from None
    return text


def _read_parquet(file: Path, name: str, field: str) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            if field not in table.schema_arrow.names:
                raise WrongInput(f"{file} has no column {field!r}: set corpus.field to the text column")
            row = 0
            for batch in table.iter_batches(batch_size=256, columns=[field]):
                for text in batch.column(0).to_pylist():
                    yield Document(f"{name}:{row}", checked_text(text, f"{file} row {row}", field))
                    row += 1
    except pa.ArrowInvalid as error:
        raise WrongInput(
            f"{file} is not a parquet file ({_first_line(error)}): repair or remove it"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def fingerprint(path: str) -> str:
    """Digest of every file's relative path, size and modification time."""
    folder = Path(path).expanduser()
    digest = hashlib.sha256()
    for file in files(folder):
        stat = file.stat()
        digest.update(raw_name(file, folder) + f"\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
