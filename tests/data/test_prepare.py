"""Preparing is idempotent, survives interruption and a full disk, and says clearly why it refuses."""

import errno
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from harness.data import cleaned, encode, shards
from harness.data.prepare import find, prepare
from harness.data.shards import TokenStore
from harness.data.tokenizer import Tokenizer, TokenizerConfig, TokenizerKind, load_tokenizer
from harness.errors import CannotAnswer, HarnessError, WrongInput

from .synthetic import prose, silent, text_dir

BYTES = TokenizerConfig(name="bytes", kind=TokenizerKind.bytes)
BPE = TokenizerConfig(name="bpe", kind=TokenizerKind.bpe, vocab_size=300)


def decoded(prepared, split):
    store = TokenStore.open(prepared.path)
    tokenizer = load_tokenizer(prepared.path / "tokenizer.json")
    starts = np.concatenate([[0], store.document_ends(split)]).astype(int)
    stream = store.tokens(split)
    return [tokenizer.decode(stream[a:b]) for a, b in itertools.pairwise(starts)]


@pytest.mark.parametrize("tokenizer", [BYTES, BPE], ids=["bytes", "bpe"])
def test_tokens_hold_every_document_once(folder, tmp_path, tokenizer):
    prepared = prepare(text_dir(folder), tokenizer, tmp_path / "data", silent)
    train, val = decoded(prepared, "train"), decoded(prepared, "val")
    assert sorted(train + val) == sorted(path.read_text() for path in folder.iterdir())
    assert len(val) >= 1
    store = TokenStore.open(prepared.path)
    store.verify()
    lengths = store.bytes_per_token[store.tokens("train")[:]]
    assert lengths.sum() == prepared.train_bytes == sum(len(text) for text in train)
    assert store.manifest.documents == {"train": len(train), "val": len(val)}


def test_second_time_returns_at_once(folder, tmp_path, monkeypatch):
    first = prepare(text_dir(folder), BPE, tmp_path / "data", silent)
    monkeypatch.setattr("harness.data.prepare._prepare", None)
    again = prepare(text_dir(folder), BPE, tmp_path / "data", silent)
    found = find(text_dir(folder), BPE, tmp_path / "data")
    assert (first.cached, again.cached, found.cached) == (False, True, True)
    assert first.path == again.path == found.path
    assert first.corpus_hash == found.corpus_hash
    assert found.train_tokens == TokenStore.open(found.path).count("train")


def test_same_text_gives_the_same_hashes_elsewhere(folder, tmp_path):
    one = prepare(text_dir(folder), BPE, tmp_path / "one", silent)
    two = prepare(text_dir(folder), BPE, tmp_path / "two", silent)
    assert (one.corpus_hash, one.tokenizer_hash) == (two.corpus_hash, two.tokenizer_hash)
    assert TokenStore.open(one.path).manifest == TokenStore.open(two.path).manifest


def test_two_tokenizers_share_the_cleaned_text(folder, tmp_path, monkeypatch):
    one = prepare(text_dir(folder), BYTES, tmp_path / "data", silent)
    monkeypatch.setattr("harness.data.prepare.clean", None)
    two = prepare(text_dir(folder), BPE, tmp_path / "data", silent)
    assert one.corpus_hash == two.corpus_hash
    assert one.path != two.path


def test_changed_sources_are_prepared_again_and_the_old_tokens_stay(folder, tmp_path):
    before = prepare(text_dir(folder), BYTES, tmp_path / "data", silent)
    (folder / "new.txt").write_text(prose(77))
    after = prepare(text_dir(folder), BYTES, tmp_path / "data", silent)
    assert not after.cached
    assert after.corpus_hash != before.corpus_hash
    TokenStore.open(before.path).verify()


def test_damaged_tokens_are_repaired(folder, tmp_path):
    first = prepare(text_dir(folder), BYTES, tmp_path / "data", silent)
    os.truncate(first.path / "train-00000.bin", 10)
    again = prepare(text_dir(folder), BYTES, tmp_path / "data", silent)
    assert not again.cached
    assert again.path == first.path
    TokenStore.open(again.path).verify()


def test_find_before_prepare_says_what_to_type(folder, tmp_path):
    with pytest.raises(CannotAnswer, match=r"harness prepare corpus=text_dir corpus.name=t tokenizer=bpe"):
        find(text_dir(folder), BPE, tmp_path / "data")


class FullDisk:
    """A stream that takes nothing."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, raw):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __getattr__(self, name):
        return getattr(self._stream, name)


def test_full_disk_leaves_the_earlier_tokens(folder, tmp_path, monkeypatch):
    data = tmp_path / "data"
    kept = prepare(text_dir(folder), BYTES, data, silent)
    with monkeypatch.context() as patch:
        opened = shards.ShardWriter._open

        def open_full(writer):
            opened(writer)
            writer._stream = FullDisk(writer._stream)

        patch.setattr(shards.ShardWriter, "_open", open_full)
        with pytest.raises(CannotAnswer, match="the disk is full while writing") as error:
            prepare(text_dir(folder), BPE, data, silent)
    assert "\n" not in str(error.value)
    assert [path.name for path in (data / "tokens").iterdir()] == [kept.path.name]
    TokenStore.open(kept.path).verify()
    assert not prepare(text_dir(folder), BPE, data, silent).cached


def test_full_disk_while_cleaning(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("Error writing bytes to file. Detail: No space left on device")

    monkeypatch.setattr(cleaned._Parts, "write", full)
    with pytest.raises(CannotAnswer, match="the disk is full"):
        prepare(text_dir(folder), BYTES, tmp_path / "data", silent)
    assert not list((tmp_path / "data" / "corpora").iterdir())


def test_interrupted_and_typed_again(folder, tmp_path, monkeypatch):
    data = tmp_path / "data"
    with monkeypatch.context() as patch:
        # As after kill -9: nothing is cleaned up behind the attempt.
        patch.setattr("harness.data.durable.shutil.rmtree", lambda *_, **__: None)
        patch.setattr(encode, "write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(text_dir(folder), BYTES, data, silent)
    assert list((data / "tokens").glob(".partial-*"))
    with pytest.raises(CannotAnswer):
        find(text_dir(folder), BYTES, data)
    prepared = prepare(text_dir(folder), BYTES, data, silent)
    TokenStore.open(prepared.path).verify()
    assert not list(data.glob("*/.partial-*"))


def test_a_tokenizer_that_does_not_fit_is_refused_by_name(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Tokenizer, "encode_batch", lambda self, texts: [np.array([300]) for _ in texts])
    with pytest.raises(WrongInput, match=r"document \d\d.txt has token 300 outside the vocabulary of 256"):
        prepare(text_dir(folder), BYTES, tmp_path / "data", silent)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "holds no .txt"),
        (["", "", ""], "has 0 documents"),
        (["tiny", "small", "less"], r"has 0 documents of at least 32 characters \(dropped: short 3\)"),
        ([prose(1)], "has 1 documents"),
        ([prose(1), prose(1)], r"has 1 distinct documents .* \(dropped: exact_duplicate 1\)"),
        ([prose(1), prose(1) + "again " * 5], "has 1 distinct documents"),
        ([prose(1), prose(2) + prose(1, 30), prose(1, 30) + prose(3)], "leaves no val document"),
    ],
)
def test_corpora_too_small_are_refused_in_one_line(tmp_path, texts, message):
    folder = tmp_path / "texts"
    folder.mkdir()
    for index, text in enumerate(texts):
        (folder / f"{index}.txt").write_text(text)
    with pytest.raises(HarnessError, match=message) as error:
        prepare(text_dir(folder), BYTES, tmp_path / "data", silent)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "data").glob("*/.partial-*"))


SCRIPT = """
import sys
from pathlib import Path
from synthetic import text_dir, silent
from harness.data import corpus, workers
from harness.data.prepare import prepare
from harness.data.tokenizer import TokenizerConfig, TokenizerKind

if __name__ == "__main__":
    corpus.BATCH_BYTES, workers.cpu_count = 2000, lambda: 2
    bpe = TokenizerConfig(name="bpe", kind=TokenizerKind.bpe, vocab_size=300)
    print(prepare(text_dir(Path(sys.argv[1])), bpe, Path(sys.argv[2]), silent).path)
"""


def test_two_at_once_with_worker_processes_equal_one_alone(folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = os.pathsep.join([os.path.dirname(__file__), os.getcwd()])  # noqa: PTH109, PTH120
    command = [sys.executable, str(script), str(folder), str(tmp_path / "data")]
    running = [
        subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=600)[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert outputs[0] == outputs[1]
    alone = prepare(text_dir(folder), BPE, tmp_path / "alone", silent)
    both = TokenStore.open(tmp_path / "data" / "tokens" / alone.path.name)
    both.verify()
    assert both.manifest == TokenStore.open(alone.path).manifest


def test_importing_the_package_is_light():
    code = (
        "import sys, harness.data.prepare, harness.data.loader; "
        "print([m for m in ('torch', 'pyarrow', 'datasets', 'tokenizers', 'packaging', 'hydra') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
