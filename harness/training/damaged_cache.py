"""A compiler's cache that a killed process left damaged: compiled once more, in a folder of its own.

Inductor's cache is shared by all runs of a user. Whoever dies while g++ writes there leaves a file that looks
finished, and every later run that needs it fails; so the file is removed as well. One kind of file fails
nobody: the probe of a vector instruction set, which when it does not load counts as "not on this machine".
"""

from __future__ import annotations

import contextlib
import re
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from harness.errors import CannotAnswer

Value = TypeVar("Value")
TORN = re.compile(r"CppCompileError|(?:OSError|ImportError): /\S+\.so: ")
"""How g++, the linker or the loader fail at a file that is not whole, or that another run has just removed.
A compiler that does not work says CppCompileError too: then the second time is in vain, and says so."""
ARTIFACT = re.compile(r"(/\S+\.(?:so|o|gch)):")

ELF_HEADER = struct.Struct("<4s36xQ10xHH2x")
"""Of 64 bits: its magic number, where the table of sections begins, the size of an entry, their number."""


def complaint(error: BaseException) -> str:
    """The line that gives a damaged cache away; empty when none does."""
    lines = f"{type(error).__name__}: {error}".splitlines()
    return next((line.strip() for line in lines if TORN.search(line)), "")


def recompiled(train: Callable[[], Value], *, alone: bool) -> Value:
    """What `train` returns, at the second try if the first met a damaged cache. Raises CannotAnswer when that
    fails like the first; at once unless `alone`, since the other processes are in the middle of a step."""
    try:
        with torn_probes_complain():
            return train()
    except (RuntimeError, OSError, ImportError) as error:
        if not complaint(error):
            raise
        folder = discard(error)
        if not alone:
            raise CannotAnswer(
                f"compiling failed ({complaint(error)}): a process killed while it compiled may have damaged "
                f"{folder}; remove that folder and start again, or plan with hardware.compile=never"
            ) from error
    print(f"compiling failed, perhaps for a damaged file in {folder}; compiling anew", file=sys.stderr)
    return in_fresh_cache(train)


def in_fresh_cache(train: Callable[[], Value]) -> Value:
    from torch import compiler
    from torch._inductor.utils import fresh_cache

    compiler.reset()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            with fresh_cache(dir=folder, delete=False):
                return train()
        except (RuntimeError, OSError, ImportError) as error:
            if not complaint(error):
                raise
            raise CannotAnswer(
                f"compiling failed in an empty folder too ({complaint(error)}); mend the compiler (CXX or "
                "g++), or plan with hardware.compile=never"
            ) from error


def discard(error: BaseException) -> Path:
    """Remove from the cache the files that the error names; where the cache lies."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    folder = Path(cache_dir())
    for name in ARTIFACT.findall(str(error)):
        if Path(name).is_relative_to(folder):
            Path(name).unlink(missing_ok=True)
    return folder


@contextlib.contextmanager
def torn_probes_complain() -> Iterator[None]:
    """While it is open, a probe that was cut short raises OSError as any other library does. Inductor would
    compile for narrower vectors, or none, without a word: slower, and rounded otherwise."""
    from torch._inductor.cpu_vec_isa import VecISA

    load = VecISA._probe_load

    def load_whole(self: VecISA, output_path: str) -> bool:
        if load(self, output_path):
            return True
        if is_cut_short(Path(output_path)):
            raise OSError(f"{output_path}: file too short")
        return False

    VecISA._probe_load = load_whole  # type: ignore[method-assign]
    try:
        yield
    finally:
        VecISA._probe_load = load  # type: ignore[method-assign]


def is_cut_short(library: Path) -> bool:
    """Whether an ELF file, whose table of sections comes last, ends before that does."""
    data = library.read_bytes()
    if len(data) < ELF_HEADER.size:
        return True
    magic, sections_at, section_size, sections = ELF_HEADER.unpack_from(data)
    return magic == b"\x7fELF" and sections_at + section_size * sections > len(data)
