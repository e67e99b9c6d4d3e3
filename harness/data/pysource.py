"""The corpus every machine already has: Python sources of the standard library and of our dependencies."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
import sysconfig
import tokenize
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

from harness.data.corpus import BATCH_BYTES, Document, Loaded, TextView, drop_short
from harness.data.prose import prose

DISTRIBUTION = "scaling-harness"
# The project's own requirement list, for a checkout that is not installed.
REQUIREMENTS = (
    *("torch", "lightning", "hydra-core", "datasets", "tokenizers", "triton"),
    *("numpy", "scipy", "matplotlib", "jinja2", "rich", "pyarrow"),
)
# lightning/ is copied whole into these two packages.
MIRRORS = frozenset({"pytorch_lightning", "lightning_fabric"})
TEST_FOLDERS = frozenset({"test", "tests", "idle_test", "__pycache__", "site-packages", "dist-packages"})
TEST_FILE = re.compile(r"(test_.*|.*_test|tests?|conftest)\.py")
# The largest group of files that is split off as a whole, as a share of all the text: small enough
# that validation is drawn from many places and that train keeps the bulk of every package.
GROUP_SHARE = 1 / 400


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A .py file: `name` is its path below site-packages or the standard library, equal on any machine."""

    name: str
    path: str
    size: int
    group: str = ""


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Source files of about 4 MB, read where `load` runs."""

    files: list[SourceFile]
    view: TextView
    min_chars: int

    def load(self) -> Loaded:
        documents: list[Document] = []
        drops: Counter[str] = Counter(undecodable=0, unparsable=0)
        for file in self.files:
            text = read_source(Path(file.path))
            if text is None:
                drops["undecodable"] += 1
                continue
            if self.view is TextView.prose:
                text = prose(text)
            if text is None:
                drops["unparsable"] += 1
                continue
            documents.append(Document(file.name, text, file.group))
        loaded = drop_short(documents, self.min_chars)
        return Loaded(loaded.documents, dict(drops + Counter(loaded.drops)))


def read_source(path: Path) -> str | None:
    """The file's text with \\n line ends, or None when it does not decode as it declares."""
    raw = path.read_bytes()
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(raw).readline)
        return raw.decode(encoding).replace("\r\n", "\n")
    except (SyntaxError, UnicodeDecodeError, LookupError):
        return None


def requirements() -> list[str]:
    """What the project requires, extras left out."""
    try:
        listed = importlib.metadata.requires(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return list(REQUIREMENTS)
    return [line for line in listed or REQUIREMENTS if "extra ==" not in line]


@cache
def dependencies() -> dict[str, importlib.metadata.Distribution]:
    """The installed closure of the requirements, by normalised name; what is not installed is passed over."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = deque(requirements())
    while waiting:
        requirement = Requirement(waiting.popleft())
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if name in found or not wanted:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting.extend(found[name].requires or [])
    return dict(sorted(found.items()))


def package_versions() -> dict[str, str]:
    """Version of Python and of every distribution the corpus is made of."""
    versions = {name: distribution.version for name, distribution in dependencies().items()}
    return {"python": platform.python_version(), **versions}


def wanted(name: str) -> bool:
    """Whether a .py path belongs in the corpus: no tests, no mirrors, nothing outside the package folder."""
    *folders, file = name.split("/")
    if not file.endswith(".py") or ".." in folders or TEST_FILE.fullmatch(file):
        return False
    # Generated for the machine that built Python, so it would change the corpus hash.
    if file.startswith("_sysconfigdata"):
        return False
    return not (TEST_FOLDERS.intersection(folders) or (folders and folders[0] in MIRRORS))


def _standard_library() -> Iterator[tuple[str, Path]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in root.rglob("*.py"):
        yield path.relative_to(root).as_posix(), path


def _packages() -> Iterator[tuple[str, Path]]:
    for distribution in dependencies().values():
        for file in distribution.files or []:
            if file.suffix == ".py":
                yield file.as_posix(), Path(str(file.locate()))


def source_files() -> list[SourceFile]:
    """Every file of the corpus in the order of names; a name that occurs twice is taken once."""
    found: dict[str, SourceFile] = {}
    for prefix, listing in (("python/", _standard_library()), ("", _packages())):
        for name, path in listing:
            if wanted(name) and path.is_file():
                found.setdefault(prefix + name, SourceFile(prefix + name, str(path), path.stat().st_size))
    return with_groups([found[name] for name in sorted(found)])


def with_groups(files: list[SourceFile]) -> list[SourceFile]:
    """Give each file the widest of its folders that holds at most `GROUP_SHARE` of all the bytes."""
    total = sum(file.size for file in files)
    sizes: Counter[str] = Counter()
    for file in files:
        for folder in _folders(file.name):
            sizes[folder] += file.size
    return [
        SourceFile(file.name, file.path, file.size, _group(file.name, sizes, GROUP_SHARE * total))
        for file in files
    ]


def _folders(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def _group(name: str, sizes: Counter[str], limit: float) -> str:
    return next((folder for folder in _folders(name) if sizes[folder] <= limit), name)


def batches(view: TextView, min_chars: int, max_documents: int | None) -> Iterator[SourceBatch]:
    """The files as batches; `max_documents` takes that many, evenly spaced over all packages."""
    files = source_files()
    if max_documents is not None and max_documents < len(files):
        files = [files[index * len(files) // max_documents] for index in range(max_documents)]
    waiting: list[SourceFile] = []
    size = 0
    for file in files:
        waiting.append(file)
        size += file.size
        if size >= BATCH_BYTES:
            yield SourceBatch(waiting, view, min_chars)
            waiting, size = [], 0
    if waiting:
        yield SourceBatch(waiting, view, min_chars)


def fingerprint() -> str:
    """Digest of the versions and of where they are installed; editing an installed file goes unnoticed."""
    places = sorted({str(distribution.locate_file("")) for distribution in dependencies().values()})
    return hashlib.sha256(repr((sorted(package_versions().items()), places)).encode()).hexdigest()
