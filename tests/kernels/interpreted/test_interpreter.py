"""The interpreter itself: that it rounds like a GPU, and that it sees what it is there to see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

from kernels.interpreter import float32_to_bfloat16


@triton.jit
def product_kernel(a, b, out, SIZE: tl.constexpr, PRECISION: tl.constexpr):
    at = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(out + at, tl.dot(tl.load(a + at), tl.load(b + at), input_precision=PRECISION))


@triton.jit
def round_kernel(numbers, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(out + at, tl.load(numbers + at).to(tl.bfloat16))


@triton.jit
def masked_kernel(numbers, out, count, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(out + at, tl.load(numbers + at, mask=at < count))


@triton.jit
def last_writer_kernel(out):
    tl.store(out, tl.program_id(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_products_are_summed_in_float32(dtype: torch.dtype) -> None:
    a, b = torch.randn(2, 16, 16, dtype=dtype)
    out = torch.empty(16, 16)
    product_kernel[(1,)](a, b, out, SIZE=16, PRECISION="ieee")
    torch.testing.assert_close(out, a.float() @ b.float(), rtol=1e-6, atol=1e-5)


def test_tf32_loses_bits() -> None:
    a, b = torch.full((16, 16), 1 + 2**-12), torch.eye(16)
    out = torch.empty(16, 16)
    product_kernel[(1,)](a, b, out, SIZE=16, PRECISION="tf32")
    assert (out == 1).all()


def test_rounds_to_the_nearest_bfloat16() -> None:
    numbers = torch.cat([torch.randn(62) * 1e3, torch.tensor([torch.inf, torch.nan])])
    out = torch.empty(64, dtype=torch.bfloat16)
    round_kernel[(1,)](numbers, out, SIZE=64)
    assert torch.equal(out[:63], numbers[:63].to(torch.bfloat16))
    assert out[63].isnan()


def test_ties_round_to_even() -> None:
    halfway = np.array([0x3F808000, 0x3F818000], dtype=np.uint32).view(np.float32)
    assert float32_to_bfloat16(halfway).tolist() == [0x3F80, 0x3F82]


def test_undefined_lanes_read_nan() -> None:
    out = torch.empty(16)
    masked_kernel[(1,)](torch.ones(16), out, 5, SIZE=16)
    assert out[5:].isnan().all()


def test_a_stray_address_is_refused() -> None:
    whole = torch.ones(32)
    with pytest.raises(InterpreterError, match="outside every tensor"):
        masked_kernel[(1,)](whole[:15], torch.empty(16), 16, SIZE=16)


def test_programs_run_in_a_shuffled_order() -> None:
    last = set()
    for _ in range(8):
        out = torch.zeros(1, dtype=torch.int32)
        last_writer_kernel[(16,)](out)
        last.add(int(out))
    assert len(last) > 1
