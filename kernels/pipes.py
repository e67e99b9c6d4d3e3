"""A bound on the speed of a loop, read off its machine code: how long each pipe of a multiprocessor is busy.

An instruction of a warp occupies its pipe for 32 threads over the lanes of the pipe, so counting instructions
gives the cycles an iteration keeps each pipe busy. If the tensor cores never overlapped with anything, an
iteration would take their time T and that of the busiest other pipe A, and the card would reach
TF_serial = FLOP / (T + A). The model sees neither memory nor clocks nor the ends of a grid: it ranks
variants of one kernel, and is no measurement.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """One line of SASS. `operands` begins with the modifiers of the opcode."""

    address: int
    opcode: str
    operands: str


@dataclass(frozen=True)
class Rates:
    """Of one multiprocessor: dense bf16 FLOP a cycle on the tensor cores, and how many cycles a warp keeps
    the FP32 pipe of its quarter busy. How many multiprocessors there are, and at what clock."""

    tensor_flop: int
    fp32_cycles: int
    multiprocessors: int
    ghz: float
    mma_sync_share: float = 1.0


@dataclass(frozen=True)
class Pipes:
    """Cycles of a multiprocessor that one iteration of one program keeps a pipe busy, and its FLOP."""

    flop: int
    tensor: float
    special: float
    fp32: float
    integer: float
    issue: float
    shared: float

    @property
    def busiest_other(self) -> float:
        return max(self.special, self.fp32, self.integer, self.issue, self.shared)

    @property
    def other_over_tensor(self) -> float:
        """A/T: below 1, the tensor cores are the busiest pipe."""
        return self.busiest_other / self.tensor

    def tf_serial(self, rates: Rates) -> float:
        """TFLOP/s of the card if the tensor cores overlapped with nothing."""
        cycles = self.tensor + self.busiest_other
        return self.flop / cycles * rates.multiprocessors * rates.ghz / 1e3


TENSOR = ("HMMA", "HGMMA", "UTCHMMA", "IMMA")
FP32 = re.compile(r"[FH](FMA|MUL|ADD)2?$|FFMA32I|FMUL32I|FADD32I")
MULTIPLY_ADD = ("IMAD", "IDP", "UIMAD")
INTEGER = re.compile(
    r"FMNMX3?$|FSEL$|FSETP?$|FCHK$|F2FP$|ISETP$|V?IADD3?$|VIADDMNMX$|V?IMNMX$|IABS$|P?LOP3?$|SHF$|PRMT$|SEL$|LEA$|"
    r"MOV$|CS2R$|P2R$|R2P$|SGXT$|BMSK$"
)
BANK_BYTES = 128
"""Shared memory moves this much a cycle: a 4-byte access of each thread of a warp."""
MATRIX_BYTES = 64 * 16 * 2
"""Of the 64 x 16 operand of a warp group's product that comes from shared memory."""


def pipes_of(body: Sequence[Instruction], warps: int, rates: Rates) -> Pipes:
    """Of the body of a loop that `warps` warps run; a quarter of them shares each scheduler."""
    per_quarter = warps / 4
    by_group, by_warp = _tensor_flop(body)
    flop = int(by_group * warps / 4 + by_warp * warps)
    share = 1.0 if by_group else rates.mma_sync_share
    multiply_adds = _count(body, MULTIPLY_ADD)
    fp32 = _matching(body, FP32)
    return Pipes(
        flop=flop,
        tensor=flop / (rates.tensor_flop * share),
        special=8 * _count(body, ("MUFU",)) * per_quarter,
        fp32=(rates.fp32_cycles * fp32 + 2 * multiply_adds) * per_quarter,
        integer=2 * _matching(body, INTEGER) * per_quarter,
        issue=len(body) * per_quarter,
        shared=sum(map(_shared_cycles, body)) * warps + sum(map(_operand_cycles, body)) * warps / 4,
    )


def _count(body: Sequence[Instruction], opcodes: Sequence[str]) -> int:
    return sum(each.opcode in opcodes for each in body)


def _matching(body: Sequence[Instruction], opcodes: re.Pattern[str]) -> int:
    return sum(opcodes.match(each.opcode) is not None for each in body)


WARP_SIZES = {"16816": 2 * 16 * 8 * 16, "1688": 2 * 16 * 8 * 8}


def _tensor_flop(body: Sequence[Instruction]) -> tuple[int, int]:
    """FLOP of the instructions that a group of four warps shares, and of those of a single warp."""
    by_group = by_warp = 0
    for each in body:
        if each.opcode not in TENSOR:
            continue
        if sizes := re.match(r"[.\w]*?\.(\d+)x(\d+)x(\d+)", each.operands):
            by_group += 2 * int(sizes[1]) * int(sizes[2]) * int(sizes[3])
        elif size := re.match(r"\.(\d+)", each.operands):
            by_warp += WARP_SIZES[size[1]]
    return by_group, by_warp


def _shared_cycles(each: Instruction) -> int:
    """Of one warp."""
    if each.opcode in ("LDSM", "STSM"):
        return 4
    if each.opcode in ("LDS", "STS"):
        return 4 if ".128" in each.operands else 2 if ".64" in each.operands else 1
    return int(each.opcode == "SHFL")


def _operand_cycles(each: Instruction) -> float:
    """Reading the operands of a warp group's product [64, 16] x [16, N]: always the second, and the first
    where it is a descriptor rather than registers."""
    if each.opcode != "HGMMA":
        return 0.0
    size = re.search(r"64x(\d+)x", each.operands)
    columns = int(size[1]) if size else 0
    first = re.match(r"[.\w]* R\d+, gdesc", each.operands) is not None
    return (columns * 16 * 2 + first * MATRIX_BYTES) / BANK_BYTES
