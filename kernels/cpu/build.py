"""C++ beside this file, compiled once for the processor it runs on."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from kernels.verdicts import cache_folder

FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno")
"""-ffast-math is left out: sums keep the order in which they are written."""


class CannotBuild(Exception):
    """Why there is no library, in one line."""


@cache
def library(name: str) -> ctypes.CDLL:
    """What `name`.cpp compiles to. Its OpenMP is the one PyTorch has loaded, since both go by one name, so
    that there is one team of threads. Raises CannotBuild."""
    source = Path(__file__).with_name(f"{name}.cpp")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise CannotBuild("no g++, nor another compiler in CXX")
    built = cache_folder() / f"{name}-{key(source, compiler)}.so"
    try:
        if not built.is_file():
            compile_whole(compiler, source, built)
        return ctypes.CDLL(str(built))
    except OSError as error:
        raise CannotBuild(str(error)) from error


def compile_whole(compiler: str, source: Path, built: Path) -> None:
    """Whole or not at all: several runs may start at once, and be killed."""
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        draft = Path(folder) / built.name
        ran = subprocess.run(
            [compiler, *FLAGS, str(source), "-o", str(draft)], capture_output=True, text=True
        )
        if ran.returncode:
            last = (ran.stderr.strip().splitlines() or ["no message"])[-1]
            raise CannotBuild(f"{compiler} cannot compile {source.name}: {last}")
        draft.replace(built)


def key(source: Path, compiler: str) -> str:
    """Of everything that decides the machine code; -march=native makes the processor one of it."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    about = "\n".join([source.read_text(), version, " ".join(FLAGS), processor()])
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def processor() -> str:
    """Its model and what it can do, where the system says so."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor()
    first = info.read_text().split("\n\n")[0].splitlines()
    return "\n".join(line for line in first if line.startswith(("model", "flags", "Features", "CPU part")))
