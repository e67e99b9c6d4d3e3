"""The token store survives full disks, and notices damage."""

import json

import numpy as np
import pytest

from harness.data.shards import ShardWriter, TokenStore
from harness.errors import CannotAnswer, WrongInput

from .synthetic import write_store

TRAIN = np.arange(1000) % 256


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "s", {"train": TRAIN, "val": np.arange(50)}, shard_bytes=300)


def test_tokens_across_shards(store):
    assert len(store.manifest.shards) == 8
    stream = store.tokens("train")
    assert len(stream) == 1000 == store.count("train")
    for low, high in [(0, 1000), (149, 151), (150, 300), (990, 2000), (5, 5)]:
        assert np.array_equal(stream[low:high], TRAIN[low:high])
    assert isinstance(stream[10:20], np.memmap)
    starts = np.array([0, 140, 149, 150, 980])
    assert np.array_equal(stream.windows(starts, 20), TRAIN[starts[:, None] + np.arange(20)])


def test_one_window_may_span_many_shards(store):
    assert np.array_equal(store.tokens("train").windows(np.array([10]), 700)[0], TRAIN[10:710])


def test_document_ends_are_global(tmp_path):
    lengths = np.array([100, 50, 3, 400, 47])
    writer = ShardWriter(tmp_path, "train", 256, 300)
    writer.append(np.zeros(600, np.uint16), lengths, list("abcde"))
    writer.append(np.zeros(10, np.uint16), np.array([10]), ["f"])
    shards = writer.finish()
    ends = [np.load(tmp_path / s.name.replace(".bin", ".ends.npy")) + 150 * i for i, s in enumerate(shards)]
    assert np.concatenate(ends).tolist() == [100, 150, 153, 553, 600, 610]
    assert [s.documents for s in shards] == [2, 1, 0, 2, 1]


def test_dtype_follows_the_vocabulary(tmp_path):
    large = np.array([70_000, 3])
    store = write_store(tmp_path / "l", {"train": large, "val": large}, vocab_size=70_001)
    assert store.manifest.dtype == "uint32"
    assert store.tokens("val")[:].tolist() == [70_000, 3]
    assert (
        write_store(tmp_path / "m", {"train": large[1:], "val": large[1:]}, vocab_size=65_536).manifest.dtype
        == "uint16"
    )


def test_token_outside_the_vocabulary_names_its_document(tmp_path):
    writer = ShardWriter(tmp_path, "train", 10)
    with pytest.raises(WrongInput, match="document second has token 10 outside the vocabulary of 10"):
        writer.append(np.array([1, 2, 9, 10, 3]), np.array([3, 2]), ["first", "second"])


def test_truncated_shard_is_named(store):
    file = store.path / "train-00001.bin"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(WrongInput, match=r"train-00001\.bin has 298 bytes"):
        TokenStore.open(store.path)


def test_missing_shard_is_named(store):
    (store.path / "val-00000.bin").unlink()
    with pytest.raises(WrongInput, match=r"val-00000\.bin"):
        TokenStore.open(store.path)


def test_edited_shard_is_found_by_verify(store):
    store.verify()
    file = store.path / "train-00002.bin"
    raw = bytearray(file.read_bytes())
    raw[7] ^= 1
    file.write_bytes(raw)
    with pytest.raises(WrongInput, match=r"train-00002\.bin differs"):
        TokenStore.open(store.path).verify()


def test_edited_manifest_is_refused(store):
    path = store.path / "manifest.json"
    payload = json.loads(path.read_text())
    payload["vocab_size"] = 255
    path.write_text(json.dumps(payload))
    with pytest.raises(WrongInput, match="was edited"):
        TokenStore.open(store.path)
    path.write_text("{ not json")
    with pytest.raises(WrongInput, match="damaged"):
        TokenStore.open(store.path)
    path.unlink()
    with pytest.raises(CannotAnswer, match="harness prepare"):
        TokenStore.open(store.path)
