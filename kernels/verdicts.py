"""Whether kernels are right on the card that is here: each is compared with PyTorch once, before it trains.

A kernel that has passed in the interpreter can still be wrong on a card (a miscompilation, a race, an
approximate exponential), so nothing trains with one before `verdict` says that it passed on this card. The
comparison runs in a process of its own: a stray address, which would take every later CUDA call of its
process down with it, and a hang cost that process only. The verdict is kept on disk for this state of the
kernels, of PyTorch, Triton and the driver, and for this card.

What is compared with what: `kernels.selfcheck` and `kernels.linear_cross_entropy.selfcheck`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol

import torch

SECONDS = 900
"""After which a comparison counts as hanging; compiling takes most of it."""

NOT_OF_THE_KERNELS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "Failed to find C compiler")
"""As Triton, cuBLAS and Triton again say it, each in a bare RuntimeError."""
STOPPED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
"""Someone ended the process: the user, Slurm, or the system for want of memory."""


class Subject(Protocol):
    """What is to be proved on `device`; a frozen dataclass of JSON's types, so that another process can have
    it too."""

    @property
    def device(self) -> str: ...

    def shortfall(self) -> str | None:
        """What is wrong, in a few words; None where nothing is."""


class Outcome(Enum):
    """`unavailable`: nothing was learned about the kernels, e.g. the card's memory was full."""

    passed = "passed"
    failed = "failed"
    unavailable = "unavailable"


@dataclass(frozen=True)
class Verdict:
    """`said`: in a few words what was found, for the record of a run."""

    outcome: Outcome
    said: str


def examine(subject: Subject) -> Verdict:
    """Compare in this process. Whatever the kernels raise is a failure of theirs, but for what says nothing
    of them: a full memory, or no compiler for the stubs that launch them."""
    try:
        torch.zeros(1, device=subject.device)
    except (RuntimeError, AssertionError) as error:
        return Verdict(Outcome.unavailable, f"{subject.device} cannot be used: {_first_line(error)}")
    try:
        said = subject.shortfall()
    except (torch.OutOfMemoryError, OSError, subprocess.CalledProcessError) as error:
        return Verdict(Outcome.unavailable, _first_line(error))
    except Exception as error:  # a refusal by the compiler, the driver, the card: each has its own type
        said = f"{type(error).__name__}: {_first_line(error)}"
        if any(sign in str(error) for sign in NOT_OF_THE_KERNELS):
            return Verdict(Outcome.unavailable, said)
    return Verdict(Outcome.passed, "") if said is None else Verdict(Outcome.failed, said)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def examine_apart(subject: Subject) -> Verdict:
    """`examine` in a process of its own; one that crashes or hangs is a failure of the kernels."""
    home = str(Path(__file__).parents[1])
    paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "kernels.verdicts", _kind(subject), json.dumps(_fields(subject))]
    try:
        ran = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return Verdict(Outcome.failed, f"no answer within {SECONDS} s")
    if -ran.returncode in STOPPED:
        return Verdict(Outcome.unavailable, f"{signal.Signals(-ran.returncode).name} stopped the comparison")
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        return Verdict(Outcome.failed, f"the comparison ended with code {ran.returncode}: {last}")
    return _parsed(ran.stdout.splitlines()[-1])


def verdict(subject: Subject, examine: Callable[[Subject], Verdict] = examine_apart) -> Verdict:
    """The kept verdict about this card, or a new one, which is kept unless nothing was learned."""
    file = cache_folder() / f"{_key(subject)}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # unreadable or damaged: look again
        return _parsed(file.read_text())
    found = examine(subject)
    if found.outcome is not Outcome.unavailable:
        with suppress(OSError):  # a folder that cannot be written costs the next run a comparison
            write_whole(file, _text(found))
    return found


def _parsed(text: str) -> Verdict:
    value = json.loads(text)
    return Verdict(Outcome(value["outcome"]), str(value["said"]))


def _text(found: Verdict) -> str:
    return json.dumps({"outcome": found.outcome.value, "said": found.said})


def write_whole(file: Path, text: str) -> None:
    """Whole or not at all: several runs may start at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as draft:
        draft.write(text)
    Path(draft.name).replace(file)


def cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "scaling-harness" / "kernels"


def _key(subject: Subject) -> str:
    about = {
        **_fields(subject),
        "kind": _kind(subject),
        "device": card_name(subject.device),
        "driver": driver(),
        "code": code_hash(),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]


def _fields(subject: Any) -> dict[str, Any]:
    return asdict(subject)


def _kind(subject: Subject) -> str:
    """Where the class of a subject is found again: module:name."""
    return f"{type(subject).__module__}:{type(subject).__qualname__}"


def card_name(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)}, {major}.{minor}"


def driver() -> str:
    """The GPU driver's own statement of its version, where there is one."""
    statement = Path("/proc/driver/nvidia/version")
    return statement.read_text().splitlines()[0] if statement.is_file() else f"hip {torch.version.hip}"


def code_hash() -> str:
    """Of everything that decides what runs: the sources beside this file, PyTorch and Triton."""
    root = Path(__file__).parent
    digest = hashlib.sha256(f"{torch.__version__} {_triton_version()}".encode())
    for source in sorted(root.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _triton_version() -> str:
    try:
        return version("triton")
    except PackageNotFoundError:
        return "none"


if __name__ == "__main__":
    print(_text(examine(resolve_name(sys.argv[1])(**json.loads(sys.argv[2])))))
