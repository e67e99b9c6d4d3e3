"""Offsets past 2^31 elements, as a large batch or a view of a large tensor has them: from sparse files, which
take no memory. Numbers far apart must give the same bits as the same numbers side by side, and kernels that
multiply in 32 bits must not."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from kernels.attention import backward, forward, primitives
from kernels.attention.problem import MAX_STRIDE
from kernels.linear_cross_entropy import kernel as loss_kernel
from kernels.norm_rotary import kernel as norm_kernel
from kernels.norm_rotary.testing import EPS
from kernels.norm_rotary.testing import Case as NormCase
from kernels.norm_rotary.testing import make_inputs as norm_inputs
from kernels.testing import Case, make_inputs

FILES = count()
Far = Callable[[Tensor, tuple[int, ...]], Tensor]


@pytest.fixture
def far(tmp_path: Path) -> Far:
    def apart(tensor: Tensor, strides: tuple[int, ...]) -> Tensor:
        """The same numbers with these strides; only the pages they lie on exist."""
        reach = sum((n - 1) * stride for n, stride in zip(tensor.shape, strides, strict=True))
        file = str(tmp_path / f"{next(FILES)}")
        memory = torch.from_file(file, shared=True, size=reach + 1, dtype=tensor.dtype)
        return memory.as_strided(tensor.shape, strides).copy_(tensor)

    return apart


BATCHES = Case(B=3, H=1, T_q=17, T_k=17, dtype=torch.float16, tile=(16, 16))
HEADS = replace(BATCHES, B=1, H=3, K=3)
TOKENS = replace(BATCHES, B=1, T_k=530, window=5)
STRIDES = {
    "batches": (BATCHES, (1 << 30, 1 << 10, 16, 1)),
    "heads": (HEADS, (1 << 10, 1 << 30, 16, 1)),
    "tokens": (TOKENS, (1, 1, MAX_STRIDE - 16, 1)),
}


def results(case: Case, tensors: list[Tensor], ours: ModuleType, theirs: ModuleType) -> tuple[Tensor, ...]:
    q, k, v, dout = tensors
    out, lse = ours.launch_forward(q, k, v, case.options, tile=case.tiles[0])
    delta = theirs.launch_delta(out, dout)
    gradients = theirs.launch_backward(
        dout, q, k, v, lse, delta, case.options, None, case.tiles[1], case.tiles[2]
    )
    return out, lse, *gradients


def agree(which: str, far: Far, ours: ModuleType = forward, theirs: ModuleType = backward) -> bool:
    case, strides = STRIDES[which]
    given = make_inputs(case)
    near = [given.q, given.k, given.v, given.dout]
    there = [far(tensor, strides) for tensor in near]
    return all(map(torch.equal, results(case, near, ours, theirs), results(case, there, ours, theirs)))


@pytest.mark.parametrize("which", STRIDES)
def test_attention_of_numbers_far_apart(which: str, far: Far) -> None:
    assert agree(which, far)


def norm_agrees(far: Far, module: ModuleType = norm_kernel) -> bool:
    given = norm_inputs(NormCase(3, 3, 3, 16, torch.float16, strided=False))
    tables = given.gain, given.cos, given.sin, EPS

    def results(x: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
        return module.launch_forward(x, *tables), *module.launch_backward(dy, x, *tables)

    near = results(given.x, given.dy)
    for strides in ((1 << 30, 64, 16, 1), (64, 1 << 30, 16, 1), (64, 16, 1 << 30, 1)):
        found = results(far(given.x, strides), far(given.dy, strides))
        if not all(map(torch.equal, near, found)):
            return False
    return True


def test_norm_and_rotation_of_numbers_far_apart(far: Far) -> None:
    assert norm_agrees(far)


def loss_agrees(far: Far, module: ModuleType = loss_kernel) -> bool:
    logits = torch.randn(129, 5, generator=torch.Generator().manual_seed(0)).half()
    targets = torch.arange(129) % 5
    found = []
    wide = far(logits.unsqueeze(0).expand(2, -1, -1), (129 << 24, 1 << 24, 1))
    for rows in (logits.clone(), wide[0].as_strided((129, 1 << 24), (1 << 24, 1))):
        losses = torch.empty(129)
        module.launch_block(rows, 5, targets, losses, 0.1, -100, True)
        found.append((losses, rows[:, :5]))
    return all(map(torch.equal, *found))


def test_a_loss_of_rows_far_apart(far: Far) -> None:
    assert loss_agrees(far)


def in_32_bits(module: ModuleType, folder: Path, patch: pytest.MonkeyPatch, within: str = "") -> ModuleType:
    """The module without its casts to 64 bits, and `primitives`, which it reads, by the name `within`."""
    text = Path(module.__file__ or "").read_text()
    assert "tl.int64" in text or within
    text = text.replace(".to(tl.int64)", "").replace(", tl.int64)", ", tl.int32)")
    if within:
        text = text.replace("kernels.attention.primitives", within)
    name = f"narrow_{next(FILES)}"
    (folder / f"{name}.py").write_text(text)
    patch.syspath_prepend(folder)
    return importlib.import_module(name)


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("which", [*STRIDES, "norm", "loss"])
def test_a_kernel_in_32_bits_is_told(
    which: str, far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def narrow(module: ModuleType, within: str = "") -> ModuleType:
        return in_32_bits(module, tmp_path, monkeypatch, within)

    try:
        match which:
            case "norm":
                same = norm_agrees(far, narrow(norm_kernel))
            case "loss":
                same = loss_agrees(far, narrow(loss_kernel))
            case "tokens":
                name = narrow(primitives).__name__
                same = agree(which, far, narrow(forward, name), backward)
            case _:
                same = agree(which, far, narrow(forward), backward)
    except Exception as error:
        assert "outside every tensor" in str(error)
        same = False
    assert not same
