"""A device that is not known has no peak."""

import pytest
import torch

from harness.training.peaks import known_peak, peak_flops
from harness.training.settings import HardwareConfig, Precision


@pytest.mark.parametrize(
    "name, bf16, fp32",
    [
        ("NVIDIA A100-SXM4-80GB", 312e12, 19.5e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12, 66.9e12),
        ("NVIDIA H100 PCIe", 756e12, 51.2e12),
        ("NVIDIA L40S", 362e12, 91.6e12),
        ("NVIDIA L40", 181e12, 90.5e12),
        ("NVIDIA L4", 121e12, 30.3e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12, 82.6e12),
        ("NVIDIA GH200 480GB", 989.4e12, 66.9e12),
        ("NVIDIA B200", 2250e12, 75e12),
        ("NVIDIA GB200", 2500e12, 80e12),
        ("NVIDIA RTX A6000", 154.8e12, 38.7e12),
        ("NVIDIA GeForce RTX 3090", 71e12, 35.6e12),
        ("NVIDIA GeForce RTX 5090", 209.5e12, 104.8e12),
        ("AMD Instinct MI300X", 1307.4e12, 163.4e12),
    ],
)
def test_data_sheets(name, bf16, fp32):
    assert known_peak(name, Precision.bf16) == pytest.approx(bf16)
    assert known_peak(name, Precision.fp32) == pytest.approx(fp32)


@pytest.mark.parametrize(
    "name",
    [
        "AMD EPYC",
        "NVIDIA A10G",
        "NVIDIA H100 NVL",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 5090 Laptop GPU",
        "RTX 4090 D",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "",
    ],
)
def test_what_is_not_in_the_table_is_unknown(name):
    assert known_peak(name, Precision.bf16) is None


def test_a_stated_peak_is_taken_and_a_cpu_has_none():
    cpu = torch.device("cpu")
    assert peak_flops(HardwareConfig(), cpu) is None
    assert peak_flops(HardwareConfig(peak_flops=4e11), cpu) == 4e11
