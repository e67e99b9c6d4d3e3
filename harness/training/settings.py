"""What a user may set about a training run. Torch-free, so that planning needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from harness.budget import HorizonConfig
from harness.data.corpus import CorpusConfig
from harness.data.tokenizer import TokenizerConfig
from harness.later import later
from harness.model.settings import (
    AttentionConfig,
    CpuAttention,
    InitConfig,
    LossKind,
    ParametrizationConfig,
    ParametrizationKind,
)
from harness.shape import ModelConfig
from harness.training.schedule import ScheduleConfig


class OptimizerKind(Enum):
    adamw = "adamw"
    muon = "muon"


@dataclass(kw_only=True)
class OptimConfig:
    """`lr` is the peak for a model of `reference_width`; other widths get
    lr * (width / reference_width) ** -width_exponent. An exponent of 0 gives every width the same, as
    muP and CompleteP ask, which have rules of their own for each kind of weight. `lr_factor` multiplies
    what comes out: the axis of a grid that is centred on every rung's own rate.

    `muon` orthogonalises the momentum of the hidden matrices, at `momentum`, and scales it to the size of
    Adam's steps, so that one lr and one weight_decay serve them and the weights that stay with AdamW."""

    kind: OptimizerKind = OptimizerKind.adamw
    lr: float
    reference_width: int = 64
    width_exponent: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_grad_norm: float = 1.0
    momentum: float = later(0.95)
    lr_factor: float = later(1.0)

    def __post_init__(self) -> None:
        for name in ("lr", "lr_factor"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"optim.{name} must be positive, not {getattr(self, name)}")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optim.{name} must lie in [0, 1), not {getattr(self, name)}")
        for name in ("weight_decay", "eps"):
            if getattr(self, name) < 0:
                raise ValueError(f"optim.{name} must not be negative, not {getattr(self, name)}")
        if self.reference_width < 1:
            raise ValueError(f"optim.reference_width must be at least 1, not {self.reference_width}")
        if self.clip_grad_norm <= 0:
            raise ValueError("optim.clip_grad_norm must be positive; a huge value switches clipping off")

    def peak_lr(self, width: int) -> float:
        return self.lr * (width / self.reference_width) ** -self.width_exponent * self.lr_factor


class Precision(Enum):
    fp32 = "fp32"
    bf16 = "bf16"


class Compile(Enum):
    auto = "auto"
    always = "always"
    never = "never"


class Gemm(Enum):
    """Who multiplies float32 matrices on a CPU in a compiled step (harness.training.gemm)."""

    torch = "torch"
    onednn = "onednn"


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Strategy(Enum):
    """How several processes share a model; `auto` is ddp for as many as the launcher started."""

    auto = "auto"
    ddp = "ddp"
    fsdp = "fsdp"


MOST_THREADS = 1024
"""More than one machine has cores. Where OpenMP cannot start as many as it is told, the process crashes."""


@dataclass(kw_only=True)
class HardwareConfig:
    """`auto` compiles where a compiler is found. `activation_gib` bounds the activations of one
    micro-batch; it is a setting rather than a reading so that a resumed run splits its batch alike.
    `memory_gib`, where it is given, bounds the whole process instead (`harness.training.memory`).
    MFU is reported where `peak_flops` (FLOP/s of the device at this precision) is given or the device is in
    `harness.training.peaks`. `gemm` and `cpu_attention` bear on compiled float32 on a CPU alone.
    With `activation_checkpointing` a layer keeps its input alone and is computed again on the way back:
    about a third more work, which counts neither as FLOPs nor towards MFU. `autotune` times the tiles of
    attention=auto on the GPU once and keeps to them: sums are then in the order of these. Of several
    processes, none is waited for longer than `timeout_seconds`."""

    device: Device = Device.auto
    precision: Precision = Precision.fp32
    compile: Compile = Compile.auto
    threads: int | None = None
    activation_gib: float = 1.0
    deterministic: bool = True
    peak_flops: float | None = None
    strategy: Strategy = later(Strategy.auto)
    activation_checkpointing: bool = later(False)
    gemm: Gemm = later(Gemm.torch)
    cpu_attention: CpuAttention = later(CpuAttention.sdpa)
    autotune: bool = later(False)
    memory_gib: float | None = later(None)
    timeout_seconds: float = later(600.0)

    def __post_init__(self) -> None:
        if not 1 <= self.timeout_seconds < math.inf:
            raise ValueError(f"hardware.timeout_seconds must be at least 1, not {self.timeout_seconds}")
        if self.autotune and self.device is Device.cpu:
            raise ValueError("hardware.autotune=true times kernels on a GPU, and hardware.device is cpu")
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise ValueError(f"hardware.threads must lie between 1 and {MOST_THREADS}, not {self.threads}")
        if self.peak_flops is not None and self.peak_flops <= 0:
            raise ValueError(f"hardware.peak_flops must be positive, not {self.peak_flops}")
        if self.activation_gib <= 0:
            raise ValueError("hardware.activation_gib must be positive")
        if self.memory_gib is not None and not self.memory_gib > 0:
            raise ValueError(f"hardware.memory_gib must be positive, not {self.memory_gib}")


@dataclass(kw_only=True)
class EvaluationConfig:
    """Validation on the same `tokens` tokens, after every `every_tokens` trained tokens and at the end.

    The windows are spaced evenly over the validation split; with a `seed` each is drawn from its own
    stretch of it, so that seeds measure how much the loss depends on which windows these are."""

    tokens: int = 131_072
    every_tokens: int = 2_000_000
    seed: int | None = later(None)

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.every_tokens < 1:
            raise ValueError("evaluation.tokens and evaluation.every_tokens must be positive")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"evaluation.seed must not be negative, not {self.seed}")


@dataclass(kw_only=True)
class SavingConfig:
    """A metrics row at least every `log_steps` steps (and at least 100 a run), a checkpoint every
    `checkpoint_seconds`, or as often as takes a twentieth of the time. With `share_trunk` runs that differ in
    their horizon alone train what they have in common once, where `schedule.warmup_tokens` makes them warm up
    alike. None of these changes the result."""

    log_steps: int = 50
    checkpoint_seconds: float = 20.0
    share_trunk: bool = later(True)

    def __post_init__(self) -> None:
        if self.log_steps < 1 or self.checkpoint_seconds < 0:
            raise ValueError("saving.log_steps must be at least 1 and saving.checkpoint_seconds not negative")


MOST_SEED = 2**63 - 1
"""PyTorch's generator takes no larger one, and the order of the data would repeat that of a smaller one."""


@dataclass(kw_only=True)
class TrainConfig:
    """One training run. Everything here is frozen into its config.json when it is planned."""

    group: str
    corpus: CorpusConfig
    tokenizer: TokenizerConfig
    model: ModelConfig
    context: int
    horizon: HorizonConfig
    optim: OptimConfig
    schedule: ScheduleConfig
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    loss: LossKind = later(LossKind.full)
    init: InitConfig = field(default_factory=InitConfig)
    parametrization: ParametrizationConfig = field(default_factory=ParametrizationConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    saving: SavingConfig = field(default_factory=SavingConfig)
    seed: int = 0
    data_seed: int = 0

    def __post_init__(self) -> None:
        if not self.group or self.group[0] == "." or not all(c.isalnum() or c in "._-" for c in self.group):
            raise ValueError(f"group={self.group!r} must be a plain folder name: letters, digits, . _ -")
        for name in ("seed", "data_seed"):
            if not -MOST_SEED <= getattr(self, name) <= MOST_SEED:
                raise ValueError(f"{name}={getattr(self, name)} must lie within 63 bits, of either sign")
        kind = self.parametrization.kind
        if kind is not ParametrizationKind.standard and self.optim.width_exponent:
            raise ValueError(
                f"parametrization={kind.value} already says how learning rates follow the width; "
                "add optim.width_exponent=0"
            )
