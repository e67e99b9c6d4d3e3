"""What a run takes of memory, and how much of its batch fits at once. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from harness.errors import WrongInput
from harness.model.settings import CHUNK, CHUNK_LOGITS_BYTES, GPU_CHUNK_LOGITS_BYTES, LossKind
from harness.shape import Layer, Mixer, ModelShape
from harness.training.optimizer_cost import FLOAT, state_bytes
from harness.training.settings import OptimizerKind


@dataclass(frozen=True)
class Place:
    """Where and how a process of the run computes."""

    on_gpu: bool = False
    compiled: bool = False
    checkpointing: bool = False
    sharded: bool = False
    processes: int = 1
    data_bytes: int = 0


ALONE_ON_CPU = Place()
MIB = 1 << 20
PROCESS_BYTES = 500 * MIB
"""Resident on a CPU before the model is there and with nothing but what a first step loads (PyTorch 2.13)."""
COMPILER_BYTES = 80 * MIB
"""What Inductor adds to that in the process that compiles. Compiled code keeps less and leaves no gaps worth
counting: on two shapes (620k, 1.8M) the estimate was 5 and 9 % too high."""
HEAP, HEAP_ACCUMULATING = 1.18, 1.33
"""Resident bytes for each of the activations: glibc's heap keeps the gaps that freed tensors leave. With one
micro-batch (1.16 to 1.20 measured) and with several, between whose tensors gradients lie (1.30 to 1.34)."""
HEAP_CHECKPOINTED = 0.57
"""With checkpointing, of what the layers would keep without it (.48 to .66 measured, of 2 to 8 layers): on a
CPU the heap gives back half of what is saved."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of one process of a run: resident ones on a CPU, on a GPU those of PyTorch's
    allocator, which have not been measured. In float32 whatever the precision."""

    process: int
    """Python, PyTorch and the compiler; not counted on a GPU."""
    data: int
    """The files of tokens, which are mapped: the system takes them back when it needs to."""
    weights: int
    gradients: int
    moments: int
    activations: int
    logits: int
    heap: int
    """What the allocator holds beside what was asked for; not counted on a GPU."""

    @property
    def total(self) -> int:
        return self.needed + self.data

    @property
    def needed(self) -> int:
        """What cannot be taken back."""
        states = self.weights + self.gradients + self.moments
        return self.process + states + self.activations + self.logits + self.heap


@cache
def training_memory(
    shape: ModelShape,
    micro_batch: int,
    parts: int = 1,
    optimizer: OptimizerKind = OptimizerKind.adamw,
    loss: LossKind = LossKind.full,
    place: Place = ALONE_ON_CPU,
) -> Memory:
    """One process that takes `parts` micro-batches of so many sequences, one after another."""
    shares = place.processes if place.sharded else 1
    weights, logits = FLOAT * shape.params.total, micro_batch * logit_bytes(shape, loss)
    kept = activation_bytes_per_sequence(shape, loss, checkpointing=place.checkpointing)
    chunk = chunk_bytes(shape, loss, micro_batch if place.on_gpu else None)
    activations = micro_batch * kept - logits + mask_bytes(shape) + chunk
    whole = micro_batch * activation_bytes_per_sequence(shape, loss) - logits + mask_bytes(shape)
    return Memory(
        process=(PROCESS_BYTES + COMPILER_BYTES * place.compiled) * (not place.on_gpu),
        data=place.data_bytes,
        weights=weights // shares,
        gradients=weights // shares,
        moments=(state_bytes(shape, optimizer) - 2 * weights) // shares,
        activations=activations,
        logits=logits,
        heap=0
        if place.on_gpu or place.compiled
        else heap_bytes(activations, whole, logits, parts, place.checkpointing),
    )


def heap_bytes(kept: int, whole: int, logits: int, parts: int, checkpointing: bool) -> int:
    """Gaps of the heap, beside `kept` activations and the logits; `whole` is what would be kept without
    checkpointing."""
    if checkpointing:
        return max(0, int(HEAP_CHECKPOINTED * whole) - kept)
    return int(((HEAP if parts == 1 else HEAP_ACCUMULATING) - 1) * (kept + logits))


def activation_bytes_per_sequence(
    shape: ModelShape, loss: LossKind = LossKind.full, *, checkpointing: bool = False
) -> int:
    """What one sequence keeps for the backward pass, counted in float32 tensors of the model's own code.

    Every pass of a layer keeps its own: 5 tensors of the MLP's hidden size and those of its mixer. The head
    keeps the logits three times (logits, log-softmax, their gradient), or when chunked its input's gradient.
    With checkpointing every pass of a layer keeps its input, and one of them all the rest.
    """
    passes = [(layer.passes, 5 * shape.mlp_hidden + mixer_floats(shape, layer)) for layer in shape.layers]
    if checkpointing:
        layers = shape.unrolled_depth * shape.width + max(floats for _, floats in passes)
    else:
        layers = sum(count * floats for count, floats in passes)
    head = 0 if loss is LossKind.full else shape.width
    return FLOAT * (layers + head + 4 * shape.width) * shape.context + logit_bytes(shape, loss)


def logit_bytes(shape: ModelShape, loss: LossKind) -> int:
    """Of one sequence: the logits, their log-softmax and its gradient."""
    return 3 * FLOAT * shape.vocab_size * shape.context if loss is LossKind.full else 0


def mixer_floats(shape: ModelShape, layer: Layer) -> int:
    """What a layer keeps of a token beside its MLP's hidden units: about 14 tensors of the width (norms,
    residual sums, q, k, v before and after rotation, the attention output). A recurrent layer also keeps two
    tensors of a chunk's square for each head and, where there are several chunks, their states."""
    if layer.mixer is Mixer.attention:
        return 14 * shape.width
    chunk = min(CHUNK, shape.context)
    single = 14 * shape.width + 8 * shape.state_size + 2 * (shape.n_heads + 1) * chunk
    if shape.context <= chunk:
        return single
    return single + 3 * shape.inner + 4 * shape.state_size + 2 * shape.state_size * shape.inner // chunk


def mask_bytes(shape: ModelShape) -> int:
    """SDPA's mask of every pass of a layer with a window, shared by a micro-batch."""
    bounded = (layer for layer in shape.layers if layer.window is not None and layer.window < shape.context)
    return FLOAT * shape.context**2 * sum(layer.passes for layer in bounded)


def chunk_bytes(shape: ModelShape, loss: LossKind, gpu_sequences: int | None = None) -> int:
    """Of a chunked loss: a block of logits and a copy, and the head's gradient, kept from the forward pass, a
    block's share of it, and its product with the gradient of the loss. On a CPU whatever the batch is; on a
    GPU, where a block may hold all of it, of so many sequences."""
    if loss is LossKind.full:
        return 0
    held = CHUNK_LOGITS_BYTES
    if gpu_sequences is not None:
        held = min(GPU_CHUNK_LOGITS_BYTES, FLOAT * gpu_sequences * shape.context * shape.vocab_size)
    return 2 * max(held, FLOAT * shape.vocab_size) + 3 * FLOAT * shape.vocab_size * shape.width


def micro_batch_sequences(
    shape: ModelShape,
    batch_sequences: int,
    activation_gib: float,
    loss: LossKind = LossKind.full,
    *,
    checkpointing: bool = False,
) -> int:
    """The largest divisor of the batch whose activations fit; never less than one sequence."""
    one = activation_bytes_per_sequence(shape, loss, checkpointing=checkpointing)
    fits = int(activation_gib * 2**30 // one)
    return max(n for n in divisors(batch_sequences) if n <= max(1, fits))


def fit_micro_batch(
    shape: ModelShape,
    batch_sequences: int,
    memory_gib: float,
    optimizer: OptimizerKind,
    loss: LossKind,
    place: Place,
) -> int:
    """The largest divisor of the batch that keeps the process below `memory_gib`, mapped files left out.

    Raises WrongInput when one sequence is too much."""
    for count in reversed(divisors(batch_sequences)):
        memory = training_memory(shape, count, batch_sequences // count, optimizer, loss, place)
        if memory.needed <= memory_gib * 2**30:
            return count
    least = training_memory(shape, 1, batch_sequences, optimizer, loss, place).needed
    raise WrongInput(
        f"hardware.memory_gib={memory_gib} is too little: one sequence of {shape.context} tokens takes about "
        f"{least / 2**30:.2f} GiB; raise it, take a shorter context or hardware.activation_checkpointing=true"
    )


def divisors(count: int) -> list[int]:
    return [n for n in range(1, count + 1) if count % n == 0]
