"""Float32 on tensor cores: its budget on a card lets their arithmetic pass, and no rougher one."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import triton.language as tl
from triton.runtime import interpreter

from kernels.interpreter import Builder, Handle
from kernels.selfcheck import Subject, compare, shipped

SUBJECT = Subject(head_dim=16, dtype="float32", windowed=False, device="cpu")
KEPT = np.uint32(0xFFFFE000)
"""Of the 32 bits of a number, those of tf32."""


def cut(wide: np.ndarray) -> np.ndarray:
    """To float32, towards zero."""
    near = wide.astype(np.float32)
    return np.where(np.abs(near.astype(np.float64)) > np.abs(wide), np.nextafter(near, np.float32(0)), near)


def multiply(a: np.ndarray, b: np.ndarray, total: np.ndarray) -> np.ndarray:
    for at in range(0, a.shape[1], 4):
        few = a[:, at : at + 4].astype(np.float64) @ b[at : at + 4].astype(np.float64)
        total = cut(total + few)
    return total


def split(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    bits = np.ascontiguousarray(numbers).view(np.uint32)
    large = ((bits + np.uint32(0x1000)) & KEPT).view(np.float32)
    return large, ((numbers - large).view(np.uint32) & KEPT).view(np.float32)


def three_products(_: Any, a: Any, b: Any, acc: Any, precision: Any, __: Any) -> Any:
    assert precision == interpreter._ir.INPUT_PRECISION.TF32x3
    (a_large, a_small), (b_large, b_small) = split(a.data), split(b.data)
    small = multiply(a_large, b_small, multiply(a_small, b_large, acc.data))
    return Handle(multiply(a_large, b_large, small), tl.float32)


def one_product(_: Any, a: Any, b: Any, acc: Any, *__: Any) -> Any:
    return Handle(multiply(split(a.data)[0], split(b.data)[0], acc.data), tl.float32)


@pytest.mark.parametrize(("product", "passes"), [(three_products, True), (one_product, False)])
def test_float32_on_tensor_cores(product: Any, passes: bool) -> None:
    with mock.patch.object(Builder, "create_dot", product):
        found = compare(SUBJECT, shipped, (130, 4, 1), None)
    assert (found.wrong == "") is passes, found.wrong
    assert found.unsteady == ""
