"""Read a corpus, train its tokenizer and write token shards. Typed again, it finds them and does nothing.

harness prepare                                  the default corpus and tokenizer
harness prepare corpus=pysource tokenizer=bytes
harness prepare corpus=text_dir corpus.path=/my/texts corpus.name=mine tokenizer=bpe_4k
harness prepare corpus=hf corpus.path=/my/dataset corpus.field=text
harness prepare experiment=demo format=json
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from harness.commands.root import Experiment, Format
from harness.config import verb
from harness.data.prepare import prepare
from harness.report.terminal import StageProgress, print_json, print_lines


@dataclass(kw_only=True)
class Settings(Experiment):
    pass


@verb("prepare", Settings)
def main(settings: Settings) -> None:
    with StageProgress() as progress:
        done = prepare(settings.corpus, settings.tokenizer, Path(settings.data_dir), progress.update)
    if settings.format is Format.json:
        print_json({**asdict(done), "path": str(done.path)})
        return
    drops = ", ".join(f"{count:,} {reason}" for reason, count in done.drops.items() if count) or "none"
    print_lines(
        f"{settings.corpus.name} + {settings.tokenizer.name}: {done.path}",
        f"train {done.train_tokens:,} tokens ({done.train_bytes / 1e6:.1f} MB), "
        f"validation {done.val_tokens:,} tokens ({done.val_bytes / 1e6:.2f} MB), "
        f"vocabulary {done.vocab_size:,}",
        f"corpus {done.corpus_hash[:12]}, tokenizer {done.tokenizer_hash[:12]}; dropped documents: {drops}",
        f"validation 16-word shingles that occur in training text: {done.leak:.2%} "
        f"(a split by file alone would leak {done.naive_leak:.2%})",
        f"{'found, prepared before' if done.cached else 'prepared'} in {done.seconds:.1f} s",
    )
