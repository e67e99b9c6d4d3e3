"""Triton's interpreter made faithful, so that kernels can be checked where there is no GPU.

Triton's own interpreter (TRITON_INTERPRET=1, set before triton is imported) runs a kernel in numpy, one
program after the other. As it comes (triton 3.9) it multiplies the bit patterns of bfloat16 operands,
truncates float32 to bfloat16, ignores the rounding to tf32, and reads zero where a masked load leaves a
lane undefined. `faithful_interpreter` repairs these, and makes visible what a GPU would hide or punish:
undefined lanes read NaN, an address outside every tensor of the launch raises, and the programs of a grid
run in a shuffled order. What it cannot show: races, the approximations of ex2 and tf32 units, the code
that the compiler emits, and speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter

Handle = interpreter.TensorHandle
Builder = interpreter.InterpreterBuilder
FLOATS = (tl.bfloat16, tl.float16, tl.float32)
CASTS = ("fp_ext", "fp_trunc", "si_to_fp", "ui_to_fp", "fp_to_si", "fp_to_ui")


@contextmanager
def faithful_interpreter(order_seed: int = 0) -> Iterator[None]:
    """Kernels launched inside run by the rules of the module's docstring."""
    with ExitStack() as stack:
        for method, replacement in _replacements(np.random.default_rng(order_seed)):
            stack.enter_context(mock.patch.object(method[0], method[1], replacement))
        yield


def _replacements(rng: np.random.Generator) -> list[tuple[tuple[Any, str], Any]]:
    memory = _Memory()
    order = _Order(rng)
    return [
        ((Builder, "cast_impl"), _cast),
        *(((Builder, f"create_{name}"), _cast) for name in CASTS),
        ((Builder, "create_fp_to_fp"), _float_to_float),
        ((Builder, "create_dot"), _dot),
        ((Builder, "create_masked_load"), memory.load),
        ((Builder, "create_masked_store"), memory.store),
        ((interpreter.GridExecutor, "_init_args_hst"), memory.note_arguments),
        ((Builder, "set_grid_dim"), order.set_grid_dim),
        ((Builder, "set_grid_idx"), order.set_grid_idx),
        ((interpreter, "_patch_lang"), _PatchOnce().patch),
        ((interpreter.interpreter_builder, "options"), _without_overflow_checks()),
    ]


_stock_cast, _stock_float_to_float, _stock_dot = (
    Builder.cast_impl,
    Builder.create_fp_to_fp,
    Builder.create_dot,
)
_stock_load, _stock_store = Builder.create_masked_load, Builder.create_masked_store
_stock_arguments = interpreter.GridExecutor._init_args_hst
_stock_grid_dim, _stock_grid_idx = Builder.set_grid_dim, Builder.set_grid_idx
_stock_patch = interpreter._patch_lang


def _without_overflow_checks() -> Any:
    """Each integer operation is otherwise repeated in 64 bits: half of the time of a small case."""
    return replace(interpreter.interpreter_builder.options, sanitize_overflow=False)


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def float32_to_bfloat16(numbers: np.ndarray) -> np.ndarray:
    """Bits of the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32)
    tie_to_even = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + np.uint32(0x7FFF) + tie_to_even) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(numbers), np.uint16(0x7FC0), rounded)


def _cast(self: Any, source: Any, target: Any, *_: Any) -> Any:
    before, after = source.dtype.scalar, target.scalar
    if before == after:
        return _stock_cast(self, source, target)
    if before == tl.bfloat16:
        wide = Handle(bfloat16_to_float32(source.data), tl.float32)
        return wide if after == tl.float32 else _stock_cast(self, wide, target)
    if after == tl.bfloat16:
        wide = source if before == tl.float32 else _stock_cast(self, source, tl.float32)
        return Handle(float32_to_bfloat16(wide.data), tl.bfloat16)
    return _stock_cast(self, source, target)


def _float_to_float(self: Any, source: Any, target: Any, rounding: Any) -> Any:
    nearest = rounding in (None, interpreter._ir.ROUNDING_MODE.RTNE)
    if nearest and source.dtype.scalar in FLOATS and target.scalar in FLOATS:
        return _cast(self, source, target)
    return _stock_float_to_float(self, source, target, rounding)


def _dot(self: Any, a: Any, b: Any, acc: Any, precision: Any, imprecise: Any) -> Any:
    return _stock_dot(self, _operand(a, precision), _operand(b, precision), acc, precision, imprecise)


def _operand(handle: Any, precision: Any) -> Any:
    """What a tensor core multiplies: products of 16-bit operands are exact in float32."""
    if handle.dtype.scalar == tl.bfloat16:
        return Handle(bfloat16_to_float32(handle.data), tl.float32)
    if handle.dtype.scalar == tl.float16:
        return Handle(handle.data.astype(np.float32), tl.float32)
    if handle.dtype.scalar == tl.float32 and precision == interpreter._ir.INPUT_PRECISION.TF32:
        return Handle(interpreter._round_f32_to_tf32(handle.data), tl.float32)
    return handle


@dataclass
class _Memory:
    """The bytes a launch may touch; loads poison their undefined lanes, strays raise IndexError."""

    spans: list[tuple[int, int]] = field(default_factory=list)

    @property
    def note_arguments(self) -> Callable[..., Any]:
        def note(executor: Any, args: Any, kwargs: Any) -> Any:
            placed = _stock_arguments(executor, args, kwargs)
            self.spans = [
                _span(each) for each in [*placed[0], *placed[1].values()] if isinstance(each, Tensor)
            ]
            return placed

        return note

    @property
    def load(self) -> Callable[..., Any]:
        def load(builder: Any, pointers: Any, mask: Any, other: Any, *rest: Any) -> Any:
            self.check(pointers, mask, "load")
            filler = _poison(pointers) if other is None else other
            return _stock_load(builder, pointers, mask, filler, *rest)

        return load

    @property
    def store(self) -> Callable[..., Any]:
        def store(builder: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
            self.check(pointers, mask, "store")
            return _stock_store(builder, pointers, value, mask, *rest)

        return store

    def check(self, pointers: Any, mask: Any, what: str) -> None:
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        addresses = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)]
        if not addresses.size:
            return
        known = np.zeros(addresses.shape, dtype=bool)
        for begin, end in self.spans:
            known |= (addresses >= begin) & (addresses + size <= end)
        if not known.all():
            program = interpreter.interpreter_builder.grid_idx
            raise IndexError(f"{what} of {(~known).sum()} addresses outside every tensor, program {program}")


def _span(tensor: Tensor) -> tuple[int, int]:
    """The addresses between the first and the last element of a tensor: a view does not own its storage."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (reach + 1) * tensor.element_size()


def _poison(pointers: Any) -> Any:
    kind = pointers.get_element_ty()
    numpy_kind = interpreter._get_np_dtype(kind)
    value = 0x7FC0 if kind == tl.bfloat16 else np.nan if numpy_kind.kind == "f" else 0x5A
    return Handle(np.full(pointers.data.shape, value, dtype=numpy_kind), kind)


@dataclass
class _Order:
    """Programs in a shuffled order: a result that depends on it is a race on a GPU."""

    rng: np.random.Generator
    shuffled: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))

    @property
    def set_grid_dim(self) -> Callable[..., None]:
        def set_grid_dim(builder: Any, *grid: int) -> None:
            _stock_grid_dim(builder, *grid)
            self.shuffled = self.rng.permutation(int(np.prod(grid)))

        return set_grid_dim

    @property
    def set_grid_idx(self) -> Callable[..., None]:
        def set_grid_idx(builder: Any, *index: int) -> None:
            grid = builder.grid_dim
            flat = self.shuffled[int(np.ravel_multi_index(index, grid))]
            _stock_grid_idx(builder, *(int(i) for i in np.unravel_index(flat, grid)))

        return set_grid_idx


class _PatchOnce:
    """The interpreter swaps the functions of triton.language anew at every call of a device function, on
    top of the last swap: a kernel made of small functions takes minutes. Once a launch is enough."""

    def __init__(self) -> None:
        self.launch: Any = None
        self.done: set[int] = set()

    def patch(self, fn: Any) -> Any:
        modules = {id(value) for value in fn.__globals__.values() if value is tl or value is tl.core}
        if self.launch is None:
            return self._begin(fn, modules)
        if not modules <= self.done:
            self.launch._changes.extend(_stock_patch(fn)._changes)
            self.done |= modules
        return None

    def _begin(self, fn: Any, modules: set[int]) -> Any:
        self.launch, self.done = _stock_patch(fn), modules
        restore = self.launch.restore

        def restore_all() -> None:
            self.launch = None
            restore()

        self.launch.restore = restore_all
        return self.launch
