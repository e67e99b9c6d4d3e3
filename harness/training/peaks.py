"""What accelerators can do at most, for MFU.

FLOP/s without sparsity, of the unit that PyTorch's matrix products use: tensor cores for bf16 (with sums in
fp32), and for fp32 the ordinary ones, since TF32 is off; AMD's matrix cores do both. Where a data sheet gives
only the figure with sparsity, half of it. Sources: NVIDIA's data sheets (A10, A30, A40, A100, H100, H200, L4,
L40, L40S, HGX B200, GB200) and architecture white papers (GA102 for the RTX 3090 and A6000, Ada v2.1 for the
RTX 40 series and RTX 6000, RTX Blackwell for the RTX 50 series); AMD's data sheets (MI250X, of whose two dies
PyTorch sees each as a device; MI300X, MI325X). The figures of the A30, RTX 3090, RTX 5090, A6000,
RTX 6000 Ada and MI250X, and of the MI300X in fp32, have yet to be held against those papers once more.
"""

from __future__ import annotations

import re

import torch

from harness.training.settings import HardwareConfig, Precision

TFLOPS: tuple[tuple[str, float, float], ...] = (
    # a pattern of the name the driver reports, bf16, fp32
    (r"A100\b", 312, 19.5),
    (r"H100 PCIe", 756, 51.2),
    (r"H100 80GB HBM3|H100 SXM", 989.4, 66.9),
    (r"H200\b(?! NVL)", 989.4, 66.9),
    (r"\bB200\b", 2250, 75),
    (r"\bGB200\b", 2500, 80),
    (r"\bL4\b", 121, 30.3),
    (r"\bL40S\b", 362, 91.6),
    (r"\bL40\b", 181, 90.5),
    (r"\bA10\b", 125, 31.2),
    (r"\bA40\b", 149.7, 37.4),
    (r"\bA30\b", 165, 10.3),
    (r"RTX A6000$", 154.8, 38.7),
    (r"RTX 6000 Ada", 364.2, 91.1),
    (r"RTX 3090$", 71, 35.6),
    (r"RTX 4090$", 165.2, 82.6),
    (r"RTX 5090$", 209.5, 104.8),
    (r"MI250X", 191.5, 47.9),
    (r"MI300X|MI325X", 1307.4, 163.4),
)

SLICE = " MIG "


def peak_flops(hardware: HardwareConfig, device: torch.device) -> float | None:
    """What the user states, else what the table says; None where MFU is unknown."""
    if hardware.peak_flops is not None or device.type != "cuda":
        return hardware.peak_flops
    return known_peak(torch.cuda.get_device_name(device), hardware.precision)


def known_peak(device_name: str, precision: Precision) -> float | None:
    """FLOP/s of a device by the name its driver gives; None for what is not in the table, CPUs among it, and
    for a slice of a card, which bears the card's name."""
    if SLICE in device_name:
        return None
    for pattern, bf16, fp32 in TFLOPS:
        if re.search(pattern, device_name):
            return (bf16 if precision is Precision.bf16 else fp32) * 1e12
    return None
