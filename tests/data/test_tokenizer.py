"""Tokenizers are lossless, deterministic, and count bytes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.tokenizer import Tokenizer, TokenizerConfig, TokenizerKind, load_tokenizer, train_bpe
from harness.errors import CannotAnswer, WrongInput

SAMPLE = [
    "def sum(a, b):\n    # don't add twice; it's wrong\n    return a + b\n\n\n" * 20,
    "Größe und Maß: naïve café, 東京 and ここ\u3000 x\u00a0 y\n",
    "if x == 10:\n\t\treturn 'it''s'  \n",
]
BPE = train_bpe(iter(SAMPLE), 300)
TOKENIZERS = [Tokenizer(None), BPE]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bytes", "bpe"])
@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=4))
def test_round_trip_and_byte_count(tokenizer, texts):
    for text, tokens in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert tokens.dtype == np.uint16
        assert tokens[-1] == tokenizer.end_token
        assert tokenizer.end_token not in tokens[:-1]
        assert tokenizer.decode(tokens) == text
        assert tokenizer.bytes_per_token[tokens].sum() == len(text.encode())


CODE = st.text(alphabet="ab'st 01_(=.\n\t#é東<|>", max_size=80)


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(CODE, min_size=1, max_size=4))
def test_encoding_by_words_equals_encoding_whole(texts):
    for text, tokens in zip(texts, BPE.encode_batch(texts), strict=True):
        whole = BPE._bpe.encode(text, add_special_tokens=False).ids
        assert tokens[:-1].tolist() == whole


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(max_size=30), min_size=2, max_size=4))
def test_tokens_do_not_depend_on_the_batch(texts):
    alone = [BPE.encode_batch([text])[0].tolist() for text in texts]
    assert [tokens.tolist() for tokens in BPE.encode_batch(texts)] == alone


def test_training_is_deterministic_and_sized():
    again = train_bpe(iter(SAMPLE), 300)
    assert again.hash == BPE.hash
    assert BPE.vocab_size == 300 == len(BPE.bytes_per_token)
    assert train_bpe(iter(SAMPLE), 290).hash != BPE.hash


def test_bpe_compresses_what_it_was_trained_on():
    assert len(BPE.encode_batch(SAMPLE)[0]) < 0.7 * len(SAMPLE[0])


def test_text_that_looks_like_a_special_token_is_text():
    text = "<|endoftext|> <s> [PAD] ÿ"
    assert BPE.decode(BPE.encode_batch([text])[0]) == text


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bytes", "bpe"])
def test_save_and_load(tokenizer, tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = load_tokenizer(path)
    assert (loaded.hash, loaded.vocab_size) == (tokenizer.hash, tokenizer.vocab_size)
    path.write_text("{")
    with pytest.raises(WrongInput, match="damaged"):
        load_tokenizer(path)
    with pytest.raises(CannotAnswer, match="harness prepare"):
        load_tokenizer(tmp_path / "none.json")


def test_decode_refuses_a_token_outside_the_vocabulary():
    with pytest.raises(WrongInput, match="token 300 is outside"):
        BPE.decode([0, 300])


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (TokenizerKind.bytes, {"vocab_size": 512}, "must be 256"),
        (TokenizerKind.bpe, {"vocab_size": 256}, "between 257"),
        (TokenizerKind.bpe, {"vocab_size": 512, "train_bytes": 0}, "train_bytes"),
        (TokenizerKind.bpe, {"vocab_size": 512, "name": "a/b"}, "names folders"),
    ],
)
def test_config_refuses(kind, values, message):
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(**{"name": "t", "kind": kind, **values})
