"""Whether the kernels are right on the card that is here: attention is compared with PyTorch's SDPA, the norm
and rotation before it with plain operations, once.

A kernel that has passed in the interpreter can still be wrong on a card (a miscompilation, a race, an
approximate exponential), so nothing trains with one before `verdict` says that it passed on this card. The
comparison runs in a process of its own: a stray address, which would take every later CUDA call of its
process down with it, and a hang cost that process only. The verdict is kept on disk for this state of the
kernels, of PyTorch, Triton and the driver, and for this card.

The comparison itself runs wherever the kernels do, the interpreter included; it has not run on a GPU yet.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.attention.api import attention
from kernels.attention.problem import Options
from kernels.attention.reference import reference_attention
from kernels.norm_rotary.api import norm_rotary
from kernels.norm_rotary.reference import reference_norm_rotary

SECONDS = 900
"""After which a comparison counts as hanging; compiling takes most of it."""


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


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is to be proved: the kernels that a model of this head dimension would launch on `device`."""

    head_dim: int
    dtype: str
    windowed: bool
    device: str

    @property
    def torch_dtype(self) -> torch.dtype:
        found = getattr(torch, self.dtype)
        assert isinstance(found, torch.dtype)
        return found


Size = tuple[int, int, int]
"""Tokens, query heads, key heads."""
Attend = Callable[[Tensor, Tensor, Tensor, int | None], Tensor]
"""q (B, H, T, D), k and v (B, K, T, D), window -> out, causal, scale 1 / sqrt(D)."""


def shipped(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    return attention(q, k, v, causal=True, window=window)


def sdpa(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    tokens = q.shape[2]
    seen = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device).tril()
    mask = None if window is None else seen.triu(1 - window)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=window is None, enable_gqa=q.shape[1] != k.shape[1]
    )


def eager(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """PyTorch's plain operations, each rounded to the precision of the inputs."""
    options = Options(causal=True, window=window, scale=q.shape[3] ** -0.5, softcap=None)
    return reference_attention(q, k, v, options)[0]


SIZES: tuple[Size, ...] = ((1, 1, 1), (200, 4, 4), (257, 4, 2))


def shortfall(subject: Subject, attend: Attend = shipped, sizes: Sequence[Size] = SIZES) -> str | None:
    """What is wrong: the first output or gradient that is further from float64 SDPA than twice the error of
    PyTorch in the same precision (SDPA's or its plain operations', the larger), or that differs between two
    runs. None where nothing is."""
    if said := norm_shortfall(subject):
        return said
    windows = (None, 1, 23) if subject.windowed else (None,)
    for size, window in product(sizes, windows):
        said = compare(subject, attend, size, window)
        if said is not None:
            return f"{said} of {size[0]} tokens, {size[1]} heads on {size[2]}, window {window}"
    return None


def norm_shortfall(subject: Subject) -> str | None:
    """The same of the norm and rotation, with a tile and a half of rows of queries cut from a projection."""
    dtype, D, device = subject.torch_dtype, subject.head_dim, subject.device
    random = torch.Generator().manual_seed(0)
    projected = torch.randn(2, 97, 5 * D, generator=random).to(device, dtype)
    x, dy = (projected[..., a * D : (a + 2) * D].unflatten(-1, (2, D)) for a in (0, 3))
    gain = (1 + torch.randn(D, generator=random) / 2).to(device)
    angle = torch.randn(97, D // 2, generator=random).to(device)
    tables = angle.cos(), angle.sin()

    def run(by: Callable[..., Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = x.detach().to(dtype).requires_grad_(), gain.detach().to(_wide(dtype)).requires_grad_()
        out = by(*inputs, *tables, eps=1e-6)
        return out.detach(), *torch.autograd.grad(out, inputs, dy.to(dtype))

    truth = run(reference_norm_rotary, torch.float64)
    once, again = run(norm_rotary, dtype), run(norm_rotary, dtype)
    for name, true, found, repeated in zip(("out", "dx", "dgain"), truth, once, again, strict=True):
        error, budget = _largest(found, true), _floor(true, found.dtype)
        if not error <= budget:
            return f"{name} of norm and rotation is off by {error:.2g}, more than {budget:.2g}"
        if not torch.equal(found, repeated):
            return f"{name} of norm and rotation differs between two runs"
    return None


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


NAMES = ("out", "dq", "dk", "dv")


def compare(subject: Subject, attend: Attend, size: Size, window: int | None) -> str | None:
    tokens, heads, key_heads = size
    random = torch.Generator().manual_seed(tokens)
    # tokens before heads in memory, as a model's projection leaves them
    shapes = [(2, tokens, n, subject.head_dim) for n in (heads, key_heads, key_heads, heads)]
    q, k, v, dout = (
        torch.randn(shape, generator=random).to(subject.device, subject.torch_dtype).transpose(1, 2)
        for shape in shapes
    )

    def run(by: Attend, dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = a, b, c = tuple(x.detach().to(dtype).requires_grad_() for x in (q, k, v))
        out = by(a, b, c, window)
        return out.detach(), *torch.autograd.grad(out, inputs, dout.to(dtype))

    truth = run(sdpa, torch.float64)
    theirs = [run(by, subject.torch_dtype) for by in (sdpa, eager)]
    once, again = run(attend, subject.torch_dtype), run(attend, subject.torch_dtype)
    for name, true, found, repeated, *rough in zip(NAMES, truth, once, again, *theirs, strict=True):
        error, allowed = _largest(found, true), 2 * max(_largest(each, true) for each in rough)
        budget = max(allowed, _floor(true, found.dtype))
        if not error <= budget:
            return f"{name} is off by {error:.2g}, more than {budget:.2g}:"
        if not torch.equal(found, repeated):
            return f"{name} differs between two runs:"
    return None


def _largest(found: Tensor, true: Tensor) -> float:
    """A NaN is infinitely wrong."""
    return float((found.double() - true).abs().nan_to_num(torch.inf).max())


def _floor(true: Tensor, dtype: torch.dtype) -> float:
    """One unit in the last place of the largest number; 32 of float32, whose sums round too."""
    return (32 if dtype == torch.float32 else 1) * torch.finfo(dtype).eps * max(1.0, float(true.abs().max()))


def examine(subject: Subject) -> Verdict:
    """Compare in this process. Whatever the kernels raise is a failure of theirs, but for a full memory."""
    try:
        torch.zeros(1, device=subject.device)
    except (RuntimeError, AssertionError) as error:
        return Verdict(Outcome.unavailable, f"{subject.device} cannot be used: {_first_line(error)}")
    try:
        said = shortfall(subject)
    except torch.OutOfMemoryError as error:
        return Verdict(Outcome.unavailable, _first_line(error))
    except Exception as error:  # a refusal by the compiler, the driver, the card: each has its own type
        said = f"{type(error).__name__}: {_first_line(error)}"
    return Verdict(Outcome.passed, "") if said is None else Verdict(Outcome.failed, said)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def examine_apart(subject: Subject) -> Verdict:
    """`examine` in a process of its own; one that dies or hangs is a failure of the kernels."""
    home = str(Path(__file__).parents[1])
    paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "kernels.selfcheck", json.dumps(asdict(subject))]
    try:
        ran = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return Verdict(Outcome.failed, f"no answer within {SECONDS} s")
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
            _keep(file, found)
    return found


def _parsed(text: str) -> Verdict:
    value = json.loads(text)
    return Verdict(Outcome(value["outcome"]), str(value["said"]))


def _text(found: Verdict) -> str:
    return json.dumps({"outcome": found.outcome.value, "said": found.said})


def _keep(file: Path, found: Verdict) -> None:
    """Whole or not at all: several runs may start at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as draft:
        draft.write(_text(found))
    Path(draft.name).replace(file)


def cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "scaling-harness" / "kernels"


def _key(subject: Subject) -> str:
    about = {**asdict(subject), "device": card_name(subject.device), "driver": driver(), "code": code_hash()}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]


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
    print(_text(examine(Subject(**json.loads(sys.argv[1])))))
