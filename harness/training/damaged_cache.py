"""A compiler's cache that a killed process left damaged: compiled once more, in a folder of its own.

Inductor's cache is shared by all runs of a user. Whoever dies while g++ writes there leaves a file that looks
finished, and every later run that needs it fails; so the file is removed as well.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from harness.errors import CannotAnswer

Value = TypeVar("Value")
TORN = re.compile(r"CppCompileError|(?:OSError|ImportError): /\S+\.so: ")
"""How g++, the linker or the loader fail at a file that is not whole, or that another run has just removed.
A compiler that does not work says CppCompileError too: then the second time is in vain, and says so."""
ARTIFACT = re.compile(r"(/\S+\.(?:so|o|gch)):")


def complaint(error: BaseException) -> str:
    """The line that gives a damaged cache away; empty when none does."""
    lines = f"{type(error).__name__}: {error}".splitlines()
    return next((line.strip() for line in lines if TORN.search(line)), "")


def recompiled(train: Callable[[], Value], *, alone: bool) -> Value:
    """What `train` returns, at the second try if the first met a damaged cache. Raises CannotAnswer when that
    fails like the first; at once unless `alone`, since the other processes are in the middle of a step."""
    try:
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
