"""The loops of `harness.training.contest`: python -m harness.training.contenders KIND COMPILED RUN.

Every loop takes its batches from ours, so that none pays for a slower loader, and trains the same shape in
the same precision with fused AdamW, clipping, and a line of metrics every LOG_STEPS steps. A line on stdin
says how many steps to take; the seconds they took come back on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from harness.errors import CannotAnswer
from harness.runs import RunDirectory, claim
from harness.shape import Mixer
from harness.training.cell import Cell, read_cell
from harness.training.contest import Kind
from harness.training.settings import Precision

LOG_STEPS = 50


class Pace(IterableDataset):
    """Hands out steps as they are asked for: (start, stop), at most `chunk` at once.

    The clock runs from one request that had to wait to the next, so that a loop that fetches ahead is timed
    over as many steps as it was given, once it has had a turn to warm up.
    """

    def __init__(self, reply: Any, chunk: int = 1) -> None:
        self.reply, self.chunk = reply, chunk

    def __iter__(self) -> Iterator[tuple[int, int]]:
        step = 0
        for line in sys.stdin:
            last = step + int(line)
            wait_for_gpu()
            began, spent = time.perf_counter(), time.process_time()
            while step < last:
                stop = min(last, step + self.chunk)
                yield step, stop
                step = stop
            wait_for_gpu()
            took = {
                "seconds": time.perf_counter() - began,
                "processor_seconds": time.process_time() - spent,
            }
            print(json.dumps(took), file=self.reply, flush=True)
        os._exit(0)


def wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def train_ours(cell: Cell, compiled: bool, reply: Any) -> None:
    """Through Lightning, as `harness train` does it, metrics rows included."""
    from harness.training.callbacks import Clock, Metrics
    from harness.training.distributed import ALONE, choose_device
    from harness.training.module import Span
    from harness.training.run import build_module, open_data
    from harness.training.trainer import build_trainer, quiet_lightning

    quiet_lightning()
    module, *_ = build_module(cell, open_data(cell), None)
    clock = Clock(0.0, cell.horizon.batch_tokens)
    with tempfile.TemporaryDirectory() as folder:
        metrics = Metrics(cell, claim(RunDirectory(Path(folder))), clock)
        device = choose_device(cell.config.hardware.device)
        trainer = build_trainer(cell.config.hardware, ALONE, device, [clock, metrics])
        pace = Pace(reply, chunk=LOG_STEPS)
        trainer.fit(module, DataLoader(pace, batch_size=None, collate_fn=lambda pair: Span(*pair)))


def train_bare(cell: Cell, compiled: bool, reply: Any) -> None:
    """The loop one would write by hand over the same model: no accumulation, no schedule, no callbacks."""
    from harness.model.init import build_model
    from harness.training.choices import attention_of
    from harness.training.distributed import choose_device
    from harness.training.optim import build_optimizer

    config = cell.config
    device = choose_device(config.hardware.device)
    attend = attention_of(cell, device, compiled=False).attend  # on a CPU PyTorch's own
    model = build_model(cell.shape, attend, config.init, config.parametrization, config.seed).to(device)
    loss_of = torch.compile(model.loss, dynamic=False) if compiled else model.loss
    optimizer = build_optimizer(model, config.optim, cell.peak_lr)
    bf16 = config.hardware.precision is Precision.bf16
    for windows in Batched(cell, reply, device):
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = loss_of(windows[:, :-1], windows[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


class Batched(Pace):
    """The windows [B, T + 1] of each step, on the device."""

    def __init__(self, cell: Cell, reply: Any, device: torch.device | str = "cpu") -> None:
        from harness.data.loader import Batches
        from harness.data.shards import TokenStore

        super().__init__(reply)
        self.device = device
        self.batches = Batches(
            TokenStore.open(Path(cell.tokens_path)),
            split="train",
            context=cell.horizon.context,
            batch_sequences=cell.horizon.batch_sequences,
            seed=cell.config.data_seed,
        )

    def __iter__(self) -> Iterator[Any]:
        for step, _ in super().__iter__():
            yield self.arranged(torch.from_numpy(self.batches.batch(step)).to(self.device))

    def arranged(self, windows: Tensor) -> Any:
        return windows


def train_transformers(cell: Cell, compiled: bool, reply: Any) -> None:
    """transformers' Trainer on Qwen3, which has our shape (RMSNorm, rotary positions, normalised queries and
    keys, SwiGLU), with its fused AdamW and, where asked for, its own torch.compile."""
    from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments

    shape, hardware, optim = plain_shape(cell), cell.config.hardware, cell.config.optim
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=shape.vocab_size,
            hidden_size=shape.width,
            num_hidden_layers=shape.depth,
            num_attention_heads=shape.n_heads,
            num_key_value_heads=shape.n_kv_heads,
            head_dim=shape.head_dim,
            intermediate_size=shape.mlp_hidden,
            max_position_embeddings=shape.context,
            tie_word_embeddings=shape.tied_embeddings,
            use_cache=False,
        )
    )
    same_size(cell, model)

    class Tokens(Batched):
        def arranged(self, windows: Tensor) -> dict[str, Tensor]:
            tokens = windows[:, :-1].contiguous()
            return {"input_ids": tokens, "labels": tokens}

    class Paced(Trainer):
        def get_train_dataloader(self) -> DataLoader:
            return DataLoader(Tokens(cell, reply), batch_size=None)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=10**9,
            per_device_train_batch_size=cell.horizon.batch_sequences,
            logging_steps=LOG_STEPS,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            optim="adamw_torch_fused",
            learning_rate=cell.peak_lr,
            weight_decay=optim.weight_decay,
            max_grad_norm=optim.clip_grad_norm,
            lr_scheduler_type="constant",
            bf16=hardware.precision is Precision.bf16,
            torch_compile=compiled,
            use_cpu=not torch.cuda.is_available() or hardware.device.value == "cpu",
        )
        Paced(model=model, args=arguments).train()


def train_litgpt(cell: Cell, compiled: bool, reply: Any) -> None:
    """litgpt's pretraining loop on its GPT with our shape, with fused AdamW, which it does not take on a CPU
    by itself; it compiles the model, not the loss."""
    import lightning
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.pretrain import fit

    shape, hardware, optim = plain_shape(cell), cell.config.hardware, cell.config.optim
    bf16 = hardware.precision is Precision.bf16
    on_gpu = torch.cuda.is_available() and hardware.device.value != "cpu"
    fabric = lightning.Fabric(
        accelerator="cuda" if on_gpu else "cpu", devices=1, precision="bf16-mixed" if bf16 else "32-true"
    )
    model: Any = GPT(
        Config(
            name="bench",
            block_size=shape.context,
            padded_vocab_size=shape.vocab_size,
            vocab_size=shape.vocab_size,
            n_layer=shape.depth,
            n_head=shape.n_heads,
            n_query_groups=shape.n_kv_heads,
            head_size=shape.head_dim,
            n_embd=shape.width,
            intermediate_size=shape.mlp_hidden,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            norm_qk=True,
            mlp_class_name="LLaMAMLP",
        )
    )
    if shape.tied_embeddings:
        model.transformer.wte.weight = model.lm_head.weight
    same_size(cell, model)
    chosen: Any = torch.compile(model) if compiled else model
    prepared = fabric.setup(chosen)
    optimizer = torch.optim.AdamW(
        prepared.parameters(), lr=cell.peak_lr, weight_decay=optim.weight_decay, fused=True
    )
    batches = Batched(cell, reply, fabric.device)
    fit(
        fabric=fabric,
        devices=1,
        state={
            "model": prepared,
            "optimizer": fabric.setup_optimizers(optimizer),
            "iter_num": 0,
            "step_count": 0,
        },
        train_dataloader=batches,
        val_dataloader=[torch.from_numpy(batches.batches.batch(0)).to(fabric.device)],
        out_dir=Path(),
        tokenizer_dir=None,
        train=TrainArgs(
            save_interval=None,
            log_interval=LOG_STEPS,
            global_batch_size=cell.horizon.batch_sequences,
            micro_batch_size=cell.horizon.batch_sequences,
            lr_warmup_steps=0,
            max_tokens=10**15,
            max_norm=optim.clip_grad_norm,
        ),
        eval=EvalArgs(interval=10**9, initial_validation=False, final_validation=False),
    )


def plain_shape(cell: Cell) -> Any:
    """Raises CannotAnswer for a shape that the other packages' models do not have."""
    shape = cell.shape
    if shape.window is not None or shape.mixer is not Mixer.attention or shape.recurrence > 1:
        raise CannotAnswer("has no model of this shape (a window, a recurrence or a linear recurrence)")
    return shape


def same_size(cell: Cell, model: nn.Module) -> None:
    found, ours = sum(weight.numel() for weight in model.parameters()), cell.shape.params.total
    if found != ours:
        raise CannotAnswer(f"its model has {found} parameters, not {ours}: another shape")


LOOPS = {
    Kind.ours: train_ours,
    Kind.bare: train_bare,
    Kind.transformers: train_transformers,
    Kind.litgpt: train_litgpt,
}


def main(kind: str, compiled: str, run: str) -> None:
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the packages print goes where nobody reads it
    cell = read_cell(RunDirectory(Path(run)))
    if cell.config.hardware.threads is not None:
        torch.set_num_threads(cell.config.hardware.threads)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            LOOPS[Kind[kind]](cell, compiled == "True", reply)
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}), file=reply, flush=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        print(json.dumps({"error": f"{type(error).__name__}: {reason}"}), file=reply, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
