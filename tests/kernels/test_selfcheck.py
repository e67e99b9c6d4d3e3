"""The comparison that a card must pass before its kernels train anything: it tells right from wrong, and its
verdict is kept. The process of its own is real here; the card is a CPU."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from torch import Tensor

from kernels import selfcheck, verdicts
from kernels.linear_cross_entropy import selfcheck as loss_selfcheck
from kernels.linear_cross_entropy.selfcheck import Subject as LossSubject
from kernels.linear_cross_entropy.selfcheck import eager
from kernels.linear_cross_entropy.sweep import Block, torch_block
from kernels.selfcheck import Subject, sdpa, shortfall
from kernels.verdicts import Outcome, Verdict, code_hash, examine_apart, verdict

FEW = ((1, 1, 1), (40, 4, 2))
SUBJECT = Subject(head_dim=16, dtype="bfloat16", windowed=True, device="cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_right_attention_passes(dtype: str) -> None:
    """The reference, which answers on a CPU."""
    assert shortfall(Subject(head_dim=16, dtype=dtype, windowed=True, device="cpu"), sizes=FEW) is None


def one_window_more(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    return sdpa(q, k, v, None if window is None else window + 1)


def other_scale(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    return sdpa(1.02 * q, k, v, window)


def wrong_key_head(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    group = q.shape[1] // k.shape[1]
    return sdpa(q, k.repeat(1, group, 1, 1), v.repeat_interleave(group, 1), window)


def no_gradient_of_the_last_key(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    return sdpa(q, torch.cat([k[:, :, :-1], k[:, :, -1:].detach()], dim=2), v, window)


def undefined_last_row(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    out = sdpa(q, k, v, window)
    return torch.cat([out[:, :, :-1], out[:, :, -1:] * float("nan")], dim=2)


def unsteady(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    out = sdpa(q, k, v, window)
    return out + torch.randn_like(out) * torch.finfo(out.dtype).eps / 8


WRONG = {
    one_window_more: "out",
    other_scale: "out",
    wrong_key_head: "out",
    no_gradient_of_the_last_key: "dk",
    undefined_last_row: "out",
    unsteady: "differs between two runs",
}


@pytest.mark.parametrize("attend", WRONG, ids=lambda wrong: wrong.__name__)
def test_wrong_attention_is_told(attend: selfcheck.Attend) -> None:
    said = shortfall(SUBJECT, attend, FEW)
    assert said is not None
    assert WRONG[attend] in said


LOSS = LossSubject(vocab_size=97, width=16, dtype="bfloat16", device="cpu")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_right_loss_passes(dtype: str) -> None:
    subject = LossSubject(vocab_size=97, width=16, dtype=dtype, device="cpu")
    assert loss_selfcheck.shortfall(subject, eager, torch_block) is None


def without_z_loss(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
    return eager(hidden, weight, targets, 0.0)


def counting_the_ignored(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
    return eager(hidden, weight, targets, z_loss) * (targets >= 0).float().mean()


def no_gradient_of_the_last_row(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
    return eager(hidden, torch.cat([weight[:-1], weight[-1:].detach()]), targets, z_loss)


CALLS = count()


def unsteady_loss(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
    return eager(hidden, weight, targets, z_loss) * (1 + 1e-6 * next(CALLS))


def too_steep(rows: Tensor, *rest: Tensor | float | bool) -> None:
    torch_block(rows, *rest)
    rows *= 1.02


WRONG_LOSSES = {
    without_z_loss: "loss",
    counting_the_ignored: "loss",
    no_gradient_of_the_last_row: "dweight",
    unsteady_loss: "differs between two runs",
}


@pytest.mark.parametrize(
    ("loss_of", "block", "what"),
    [
        *((loss_of, torch_block, what) for loss_of, what in WRONG_LOSSES.items()),
        (eager, too_steep, "dhidden"),
    ],
)
def test_a_wrong_loss_is_told(loss_of: loss_selfcheck.LossOf, block: Block, what: str) -> None:
    said = loss_selfcheck.shortfall(LOSS, loss_of, block)
    assert said is not None
    assert what in said


def test_the_process_of_its_own_brings_back_what_it_found() -> None:
    assert examine_apart(SUBJECT) == Verdict(Outcome.passed, "")
    assert resolve_name(verdicts._kind(LOSS)) is LossSubject
    refused = examine_apart(Subject(head_dim=24, dtype="bfloat16", windowed=False, device="cpu"))
    assert refused.outcome is Outcome.failed
    assert "head_dim 24 is not supported" in refused.said


def test_a_process_that_dies_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts.sys, "executable", "false")
    assert examine_apart(SUBJECT).outcome is Outcome.failed


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("TERM", Outcome.unavailable),
        ("KILL", Outcome.unavailable),
        ("SEGV", Outcome.failed),
        ("ABRT", Outcome.failed),
    ],
)
def test_who_was_stopped_has_not_failed(
    name: str, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = tmp_path / "python"
    stopped.write_text(f"#!/bin/sh\nkill -{name} $$\n")
    stopped.chmod(0o755)
    monkeypatch.setattr(verdicts.sys, "executable", str(stopped))
    assert examine_apart(SUBJECT).outcome is outcome


@dataclass(frozen=True)
class Raising:
    error: Exception
    device: str = "cpu"

    def shortfall(self) -> str | None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), Outcome.unavailable),
        (RuntimeError("Triton Error [CUDA]: out of memory"), Outcome.unavailable),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), Outcome.unavailable),
        (RuntimeError("Failed to find C compiler. Please specify via CC"), Outcome.unavailable),
        (subprocess.CalledProcessError(1, "gcc"), Outcome.unavailable),
        (PermissionError(13, "Permission denied", "~/.triton"), Outcome.unavailable),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), Outcome.failed),
        (RuntimeError("out of resource: shared memory, Required: 262144"), Outcome.failed),
        (TypeError("a kernel's own"), Outcome.failed),
    ],
)
def test_what_says_nothing_of_the_kernels_is_no_failure_of_theirs(error: Exception, outcome: Outcome) -> None:
    found = verdicts.examine(Raising(error))
    assert found.outcome is outcome and found.said


def test_no_card_teaches_nothing() -> None:
    if not torch.cuda.is_available():
        gone = Subject(head_dim=16, dtype="bfloat16", windowed=False, device="cuda")
        assert verdicts.examine(gone).outcome is Outcome.unavailable


def counting(found: Verdict) -> tuple[list[Subject], Callable[[Subject], Verdict]]:
    asked: list[Subject] = []

    def examine(subject: Subject) -> Verdict:
        asked.append(subject)
        return found

    return asked, examine


@pytest.mark.parametrize("outcome", Outcome)
def test_a_verdict_is_kept_if_there_is_one(outcome: Outcome) -> None:
    asked, examine = counting(Verdict(outcome, "why"))
    assert [verdict(SUBJECT, examine) for _ in range(2)] == [Verdict(outcome, "why")] * 2
    assert len(asked) == (2 if outcome is Outcome.unavailable else 1)


def test_other_code_another_card_or_another_driver_is_compared_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, examine = counting(Verdict(Outcome.passed, ""))
    verdict(SUBJECT, examine)
    for name in ("code_hash", "card_name", "driver"):
        with monkeypatch.context() as changed:
            changed.setattr(verdicts, name, lambda *_: "another")
            verdict(SUBJECT, examine)
    assert len(asked) == 4


def test_a_damaged_verdict_is_replaced_and_an_unwritable_folder_is_no_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, examine = counting(Verdict(Outcome.passed, ""))
    verdict(SUBJECT, examine)
    (file,) = cache.rglob("*.json")
    file.write_text('{"outcome": "pas')
    for _ in range(2):
        assert verdict(SUBJECT, examine).outcome is Outcome.passed
    assert len(asked) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert verdict(SUBJECT, examine).outcome is Outcome.passed


def test_the_hash_follows_the_sources() -> None:
    assert code_hash() == code_hash()
    assert len(code_hash()) == 12
