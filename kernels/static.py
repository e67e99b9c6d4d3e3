"""What a kernel will be on a card that is not there: compile it, and read the machine code.

Triton brings ptxas and cuobjdump along, so a kernel compiles for any card without a GPU or a driver.
Inside `compiling_for` the ordinary wrappers compile instead of launching, with the tiles they would take on
that card. Read off are registers, spills (in all, and in each loop around tensor-core instructions), shared
memory, tensor-core instructions, and how many programs fit on a multiprocessor. No speed is claimed.

    python -m kernels.static                 the table of the shipped tiles for sm_80 and sm_90
    python -m kernels.static sm_120 gfx942   for other cards
    python -m kernels.static --write         and keep it as the baseline that the tests compare with
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from kernels.attention.backward import launch_backward
from kernels.attention.forward import launch_forward
from kernels.attention.problem import Options, documents_of_ids
from kernels.attention.tuning import Pass
from kernels.norm_rotary import kernel as norm_rotary
from kernels.pipes import TENSOR, Instruction, Pipes, Rates, pipes_of

BASELINE = Path(__file__).parent / "attention" / "baseline.json"


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
    """A loop around tensor-core instructions, none of the same kind inside it."""

    instructions: int
    tensor: int
    spills: int
    pipes: Pipes | None = None


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
    def main_loop_spills(self) -> int:
        return self.loops[0].spills if self.loops else 0

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
    """The innermost backward jumps over tensor-core instructions."""
    spans = [span for each in instructions if (span := _backward_jump(each)) is not None]
    bodies = {span: [each for each in instructions if span[0] <= each.address <= span[1]] for span in spans}
    bodies = {span: body for span, body in bodies.items() if _count(body, TENSOR)}
    innermost = [
        body
        for (begin, end), body in bodies.items()
        if not any((b, e) != (begin, end) and begin <= b and e <= end for b, e in bodies)
    ]
    loops = [
        Loop(
            len(body),
            _count(body, TENSOR),
            _count(body, SPILLS),
            None if rates is None else pipes_of(body, warps, rates),
        )
        for body in innermost
    ]
    return tuple(sorted(loops, key=lambda loop: loop.instructions / loop.tensor))


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


PLAIN = Options(causal=True, window=None, scale=0.1, softcap=None)
KERNELS = {
    "forward_kernel": Pass.forward,
    "keys_values_kernel": Pass.keys_values,
    "queries_kernel": Pass.queries,
}


def compile_attention(
    card: Card, head_dim: int, dtype: torch.dtype, options: Options = PLAIN, packed: bool = False
) -> dict[Pass, Resources]:
    """The kernels of a head dimension with the tiles of the card, through the ordinary wrappers.

    `packed`: documents, grouped queries and a sink as well.
    """
    q = torch.empty(1, 2, 256, head_dim, dtype=dtype)
    k = q[:, :1] if packed else q
    row = torch.empty(1, 2, 256)
    documents = documents_of_ids(torch.zeros(1, 256, dtype=torch.long)) if packed else None
    with compiling_for(card) as compiled:
        launch_forward(q, k, k, options, documents, row[0, :, 0] if packed else None)
        launch_backward(q, q, k, k, row, row, options, documents)
    return {KERNELS[each.name]: resources(each, card) for each in compiled}


def compile_norm_rotary(card: Card, head_dim: int, dtype: torch.dtype) -> list[Resources]:
    """Norm and rotation before attention, forward and backward."""
    x, gain, table = torch.empty(1, 64, 2, head_dim, dtype=dtype), torch.empty(head_dim), torch.empty(64, 1)
    with compiling_for(card) as compiled:
        norm_rotary.launch_forward(x, gain, table, table, 1e-6)
        norm_rotary.launch_backward(x, x, gain, table, table, 1e-6)
    return [resources(each, card) for each in compiled]


def violations(found: Resources, card: Card) -> list[str]:
    """Why a configuration must not ship; empty when it may. A spill in the main loop is one reason."""
    said = []
    if found.main_loop_spills:
        said.append(f"{found.main_loop_spills} spill instructions in the main loop")
    if found.registers <= 32 and found.spills:
        said.append(f"the assembler gave up: {found.registers} registers, {found.spills} spills")
    if found.shared_bytes > card.shared_per_program:
        said.append(f"{found.shared_bytes} bytes of shared memory of {card.shared_per_program}")
    if found.programs_per_sm < 1:
        said.append("no program fits on a multiprocessor")
    if not found.tensor_instructions:
        said.append("no tensor-core instruction")
    return said


def regressions(found: Resources, before: dict[str, Any]) -> list[str]:
    """What became worse than the kept baseline (same triton)."""
    worse = {
        "registers": found.registers > before["registers"] + 8,
        "spills": found.spills > before["spills"] + 2,
        "loop_spills": found.loop_spills > before["loop_spills"],
        "shared_bytes": found.shared_bytes > before["shared_bytes"],
        "programs_per_sm": found.programs_per_sm < before["programs_per_sm"],
        "instructions": bool(found.loops) and found.loops[0].instructions > 1.05 * before["instructions"],
    }
    return [name for name, is_worse in worse.items() if is_worse]


def as_row(found: Resources) -> dict[str, Any]:
    numbers = {key: value for key, value in asdict(found).items() if key not in ("kernel", "loops")}
    lean = found.loops[0] if found.loops else Loop(0, 0, 0)
    return numbers | {
        "main_loop_spills": found.main_loop_spills,
        "loop_spills": found.loop_spills,
        "instructions": lean.instructions,
        "tensor": lean.tensor,
    }


def key_of(card: str, head_dim: int, which: Pass) -> str:
    return f"{card} {head_dim} {which.value} bfloat16"


def baseline() -> dict[str, Any]:
    """{"triton": version, "rows": {key_of(...): as_row(...)}}"""
    return json.loads(BASELINE.read_text())


def main(words: list[str]) -> None:
    cards = [word for word in words if not word.startswith("--")] or ["sm_80", "sm_90"]
    rows: dict[str, dict[str, Any]] = {}
    for name in cards:
        for head_dim in (16, 32, 64, 128, 256):
            for which, found in compile_attention(CARDS[name], head_dim, torch.bfloat16).items():
                key = key_of(name, head_dim, which)
                rows[key] = as_row(found)
                print(key, rows[key], "; ".join(violations(found, CARDS[name])), flush=True)
    if "--write" in words:
        kept = json.loads(BASELINE.read_text())["rows"] if BASELINE.exists() else {}
        text = json.dumps({"triton": triton.__version__, "rows": kept | rows}, indent=1)
        BASELINE.write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
