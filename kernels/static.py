"""What a kernel will be on a card that is not there: compile it, and read the machine code.

Triton brings ptxas and cuobjdump along, so a kernel compiles for any card without a GPU or a driver.
Inside `compiling_for` the ordinary wrappers compile instead of launching, with the tiles they would take on
that card. Read off are registers, spills (in all, and in each loop around tensor-core instructions), shared
memory, tensor-core instructions, and how many programs fit on a multiprocessor. No speed is claimed.
`kernels.shipped` does this for every shipped tile.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from kernels.pipes import TENSOR, Instruction, Rates, pipes_of


@dataclass(frozen=True)
class Card:
    """A compilation target and the limits of its multiprocessors. Bytes; warps of 32 threads (AMD: 64)."""

    target: GPUTarget
    shared_per_program: int
    shared_per_sm: int
    registers_per_sm: int
    warps_per_sm: int
    rates: Rates | None = None


KIB = 1024
CARDS = {
    "sm_80": Card(GPUTarget("cuda", 80, 32), 163 * KIB, 164 * KIB, 65536, 64, Rates(2048, 2, 108, 1.41)),
    "sm_90": Card(
        GPUTarget("cuda", 90, 32), 227 * KIB, 228 * KIB, 65536, 64, Rates(4096, 1, 132, 1.755, 0.62)
    ),
    "sm_100": Card(GPUTarget("cuda", 100, 32), 227 * KIB, 228 * KIB, 65536, 64),
    "sm_120": Card(GPUTarget("cuda", 120, 32), 99 * KIB, 100 * KIB, 65536, 48, Rates(1024, 1, 188, 2.4)),
    "gfx942": Card(GPUTarget("hip", "gfx942", 64), 64 * KIB, 64 * KIB, 4 * 512 * 64, 32),
}
"""Limits from the CUDA C programming guide, table of compute capabilities, and the CDNA 3 ISA guide.
Rates: NVIDIA's white papers on A100, H100 and RTX Blackwell, at boost clock; on H100 mma.sync reaches .62 of
the peak of the tensor cores (arXiv 2402.13499)."""

RESERVED = 1 * KIB
"""Shared memory the CUDA runtime keeps of each program."""


class _NoDriver:
    """What Triton's compiler asks of a driver; nothing is loaded and nothing runs."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.utils = SimpleNamespace(
            get_device_properties=lambda _: {
                "max_shared_mem": card.shared_per_program,
                "max_num_regs": card.registers_per_sm,
                "multiprocessor_count": 1,
                "warpSize": card.target.warp_size,
            },
            load_binary=lambda *_: (1, 1, 0, 0, 1024),
            unload_module=lambda *_: None,
        )

    def get_current_target(self) -> GPUTarget:
        return self.card.target

    def get_current_device(self) -> str:
        return f"{self.card.target.backend}:{self.card.target.arch}"

    def get_current_stream(self, _: Any = None) -> int:
        return 0

    def launcher_cls(self, *_: Any) -> Callable[..., None]:
        return lambda *_, **__: None


@contextmanager
def compiling_for(card: Card) -> Iterator[list[Any]]:
    """Launches inside compile for `card` and are kept in the list; none runs. Tensors may be on the CPU."""
    compiled: list[Any] = []
    ordinary = JITFunction.run

    def run(self: Any, *args: Any, **options: Any) -> Any:
        compiled.append(ordinary(self, *args, **{**options, "warmup": True}))
        return compiled[-1]

    with (
        mock.patch.object(JITFunction, "run", run),
        mock.patch.object(triton.runtime.driver, "_active", _NoDriver(card)),
    ):
        yield compiled


@dataclass(frozen=True)
class Loop:
    """A loop around tensor-core instructions, none of the same kind inside it. The last two are None where
    the rates of the card are not known (`kernels.pipes`)."""

    instructions: int
    tensor: int
    spills: int
    other_over_tensor: float | None = None
    tf_serial: float | None = None


@dataclass(frozen=True)
class Resources:
    """What one program of a kernel takes. `loops`: the leanest first, the one that computes no mask."""

    kernel: str
    registers: int
    spills: int
    shared_bytes: int
    tensor_instructions: int
    programs_per_sm: int
    loops: tuple[Loop, ...]

    @property
    def loop_spills(self) -> int:
        return max((loop.spills for loop in self.loops), default=0)


def resources(compiled: Any, card: Card) -> Resources:
    """Read the machine code of a compiled kernel."""
    if card.target.backend == "hip":
        return _of_amdgcn(compiled, card)
    sass, usage = _disassemble(compiled.asm["cubin"])
    registers = int(re.findall(r"REG:(\d+)", usage)[-1])
    instructions = _instructions(sass)
    return Resources(
        kernel=compiled.name,
        registers=registers,
        spills=_count(instructions, SPILLS),
        shared_bytes=compiled.metadata.shared,
        tensor_instructions=_count(instructions, TENSOR),
        programs_per_sm=_programs_per_sm(
            card, registers, compiled.metadata.shared + RESERVED, compiled.metadata.num_warps
        ),
        loops=_loops(instructions, compiled.metadata.num_warps, card.rates),
    )


SPILLS = ("LDL", "STL")
INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)(.*?);", re.MULTILINE)


def _disassemble(cubin: bytes) -> tuple[str, str]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        return _output(tool, "-sass", file.name), _output(tool, "-res-usage", file.name)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _instructions(sass: str) -> list[Instruction]:
    return [
        Instruction(int(address, 16), opcode, rest) for address, opcode, rest in INSTRUCTION.findall(sass)
    ]


def _count(instructions: list[Instruction], opcodes: tuple[str, ...]) -> int:
    return sum(each.opcode in opcodes for each in instructions)


def _loops(instructions: list[Instruction], warps: int = 4, rates: Rates | None = None) -> tuple[Loop, ...]:
    """The innermost backward jumps over tensor-core instructions. A jump over an EXIT is no loop: it comes
    back from the blocks that the assembler puts at the end for warps whose threads went apart."""
    spans = [span for each in instructions if (span := _backward_jump(each)) is not None]
    bodies = {span: [each for each in instructions if span[0] <= each.address <= span[1]] for span in spans}
    bodies = {
        span: body for span, body in bodies.items() if _count(body, TENSOR) and not _count(body, ("EXIT",))
    }
    innermost = [
        body
        for (begin, end), body in bodies.items()
        if not any((b, e) != (begin, end) and begin <= b and e <= end for b, e in bodies)
    ]
    loops = [_loop(body, warps, rates) for body in innermost]
    return tuple(sorted(loops, key=lambda loop: loop.instructions / loop.tensor))


def _loop(body: list[Instruction], warps: int, rates: Rates | None) -> Loop:
    loop = Loop(len(body), _count(body, TENSOR), _count(body, SPILLS))
    if rates is None:
        return loop
    pipes = pipes_of(body, warps, rates)
    return replace(
        loop,
        other_over_tensor=round(pipes.other_over_tensor, 3),
        tf_serial=round(pipes.tf_serial(rates), 1),
    )


def _backward_jump(instruction: Instruction) -> tuple[int, int] | None:
    goal = re.findall(r"0x([0-9a-f]+)", instruction.operands)
    if instruction.opcode != "BRA" or not goal or int(goal[-1], 16) >= instruction.address:
        return None
    return int(goal[-1], 16), instruction.address


def _programs_per_sm(card: Card, registers: int, shared: int, warps: int) -> int:
    """Registers are given to a warp in units of 256, shared memory in units of 128 bytes."""
    per_warp = -(-registers * card.target.warp_size // 256) * 256
    by_registers = card.registers_per_sm // (per_warp * warps)
    return min(by_registers, card.shared_per_sm // (-(-shared // 128) * 128), card.warps_per_sm // warps)


def _of_amdgcn(compiled: Any, card: Card) -> Resources:
    """AMD: vector registers, spills and matrix instructions from the assembly; loops are not told apart."""
    text = compiled.asm["amdgcn"]
    registers = int(re.findall(r"\.vgpr_count:\s*(\d+)", text)[-1])
    shared, warps = compiled.metadata.shared, compiled.metadata.num_warps
    return Resources(
        kernel=compiled.name,
        registers=registers,
        spills=int(re.findall(r"\.vgpr_spill_count:\s*(\d+)", text)[-1]),
        shared_bytes=shared,
        tensor_instructions=len(re.findall(r"^\s*v_mfma_", text, re.MULTILINE)),
        programs_per_sm=_programs_per_sm(card, registers, max(shared, 1), warps),
        loops=(),
    )
