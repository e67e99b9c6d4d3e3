"""Sources: every file format, every refusal, and what `pysource` takes."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.data import pysource
from harness.data.corpus import CorpusConfig, CorpusKind, TextView, batches, fingerprint
from harness.data.prose import prose
from harness.errors import WrongInput

from .synthetic import text_dir

ROWS = [{"text": f"document number {i} of the small test corpus", "other": i} for i in range(5)]


def texts(config):
    return [document.text for batch in batches(config) for document in batch.load().documents]


def test_text_dir_reads_each_format_in_path_order(tmp_path):
    (tmp_path / "sub").mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS[:2]), tmp_path / "sub" / "a.parquet")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in ROWS[2:4]))
    (tmp_path / "a.txt").write_text(ROWS[4]["text"])
    (tmp_path / "ignored.md").write_text("not read")
    expected = [ROWS[i]["text"] for i in (4, 2, 3, 0, 1)]
    assert texts(text_dir(tmp_path)) == expected
    assert texts(text_dir(tmp_path, max_documents=2)) == expected[:2]


def test_a_large_txt_is_cut_at_line_ends_and_loses_nothing(tmp_path):
    text = "".join(f"line {i} of a long file\r\n" for i in range(20_000))
    (tmp_path / "long.txt").write_bytes(text.encode())
    pieces = texts(text_dir(tmp_path))
    assert len(pieces) > 5
    assert "".join(pieces) == text
    assert all(piece.endswith("\n") for piece in pieces)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"good\xff bad" * 10, "a.txt is not valid UTF-8"),
        ("a.jsonl", b'{"text": "ok"}\n{"text": \n', "a.jsonl:2 is not JSON"),
        ("a.jsonl", b'{"text": "ok"}\n{"body": "x"}\n', "a.jsonl:2 has no field 'text'"),
        ("a.jsonl", b'{"text": 7}\n', "a.jsonl:1: field 'text' holds int"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "half a surrogate"),
        ("a.jsonl", b'{"text": "\xff"}\n', "a.jsonl:1 is not valid UTF-8"),
        ("a.parquet", b"PAR1 this is not parquet", "a.parquet is not a parquet file"),
        ("a.md", b"x", "holds no .txt, .jsonl, .parquet"),
    ],
)
def test_text_dir_refuses_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WrongInput, match=message) as error:
        texts(text_dir(tmp_path))
    assert "\n" not in str(error.value)


def test_a_name_that_is_no_utf8_and_a_byte_order_mark_are_read_all_the_same(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(name)).write_text(ROWS[0]["text"])
    (tmp_path / "x.jsonl").write_text("\ufeff" + json.dumps(ROWS[1]) + "\n", encoding="utf-8")
    documents = [d for batch in batches(text_dir(tmp_path)) for d in batch.load().documents]
    assert [document.text for document in documents] == [row["text"] for row in ROWS[:2]]
    assert documents[0].name == "caf\N{REPLACEMENT CHARACTER}.txt"
    assert fingerprint(text_dir(tmp_path))


def test_parquet_without_the_field(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    with pytest.raises(WrongInput, match=r"a.parquet has no column 'body'"):
        texts(text_dir(tmp_path, field="body"))


def test_missing_folder_and_missing_path(tmp_path):
    with pytest.raises(WrongInput, match="does not exist"):
        texts(text_dir(tmp_path / "nowhere"))
    (tmp_path / "a.txt").write_text("one")
    with pytest.raises(WrongInput, match=r"a\.txt is not a folder"):
        texts(text_dir(tmp_path / "a.txt"))
    with pytest.raises(WrongInput, match="needs a path"):
        texts(CorpusConfig(name="t", kind=CorpusKind.text_dir))


def test_fingerprint_follows_the_files(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    before = fingerprint(text_dir(tmp_path))
    assert fingerprint(text_dir(tmp_path)) == before
    (tmp_path / "a.txt").write_text("three")
    assert fingerprint(text_dir(tmp_path)) != before


@pytest.fixture
def offline(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


def hf(path, **values):
    return CorpusConfig(**{"name": "h", "kind": CorpusKind.hf, "path": str(path), **values})


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("kind", ["parquet file", "parquet folder", "json folder"])
def test_hf_reads_local_files(tmp_path, offline, kind, streaming):
    source = tmp_path / "source"
    source.mkdir()
    if kind.startswith("parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), source / "train.parquet")
    else:
        (source / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    path = source / "train.parquet" if kind == "parquet file" else source
    assert texts(hf(path, streaming=streaming)) == [row["text"] for row in ROWS]
    with pytest.raises(WrongInput, match="no column 'body'"):
        texts(hf(path, streaming=streaming, field="body"))


def test_hf_reads_a_saved_dataset(tmp_path, offline):
    saved = offline.Dataset.from_list(ROWS)
    saved.save_to_disk(tmp_path / "one")
    offline.DatasetDict({"train": saved}).save_to_disk(tmp_path / "many")
    for name in ("one", "many"):
        assert texts(hf(tmp_path / name)) == [row["text"] for row in ROWS]
    with pytest.raises(WrongInput, match="no split 'test' but train"):
        texts(hf(tmp_path / "many", split="test"))


def test_hf_refuses_in_one_line(tmp_path, offline):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(WrongInput, match=f"dataset {path}") as error:
            texts(hf(path))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("numpy/linalg/linalg.py", True),
        ("numpy/linalg/tests/test_linalg.py", False),
        ("torch/test_utils.py", False),
        ("torch/testing/_comparison.py", True),
        ("pytorch_lightning/trainer.py", False),
        ("lightning/pytorch/trainer.py", True),
        ("../../bin/tool.py", False),
        ("numpy/core.pyi", False),
        ("site-packages/other/x.py", False),
    ],
)
def test_pysource_takes_no_tests_and_no_mirrors(name, expected):
    assert pysource.wanted(name) is expected


def test_pysource_is_the_dependency_closure_only():
    names = pysource.package_versions()
    assert {"python", "torch", "numpy", "omegaconf"} <= set(names)
    assert not {"pytest", "hypothesis", "ruff", "mypy", "scaling-harness"} & set(names)


def test_pysource_groups_are_folders_of_bounded_size():
    files = [pysource.SourceFile(f"big/{f}/{i}.py", "", 100) for f in "abcdefghij" for i in range(100)]
    files += [pysource.SourceFile("small/x.py", "", 50), pysource.SourceFile("small/y/z.py", "", 50)]
    groups = {file.name: file.group for file in pysource.with_groups(files)}
    assert groups["small/x.py"] == groups["small/y/z.py"] == "small"
    assert groups["big/a/7.py"] == "big/a/7.py"


def test_pysource_documents():
    config = CorpusConfig(name="p", kind=CorpusKind.pysource, max_documents=40)
    sources = list(batches(config))
    found = [document.text for batch in sources for document in batch.load().documents]
    assert 20 < len(found) <= 40
    as_prose = [replace(batch, view=TextView.prose) for batch in sources]
    passages = [document.text for batch in as_prose for document in batch.load().documents]
    assert 0 < sum(map(len, passages)) < 0.8 * sum(map(len, found))


def test_prose_takes_docstrings_and_comments_in_order():
    source = (
        '#!/usr/bin/env python\n"""Module text."""\nimport os  # noqa\n# first line\n# second line\n'
        'x = "# no comment"\ny = """\n# nor this\n"""\n\n\nclass A:\n'
        '    """Class text.\n\n    More.\n    """\n'
        "\n    def f(self):\n        if x:\n            def g():\n                'inner'\n"
        "        return 1  # last\n"
    )
    assert prose(source) == (
        "Module text.\n\nfirst line\nsecond line\n\nClass text.\n\nMore.\n\ninner\n\nlast\n"
    )
    assert prose("def broken(:\n") is None
