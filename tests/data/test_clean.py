"""Duplicates are found, groups stay together, and planted leaks are measured and closed."""

import hashlib

import numpy as np
import pytest

from harness.data.clean import clean
from harness.data.cleaned import Fate, document_rows, fates, read_texts, row_groups
from harness.data.dedup import exact_duplicates, near_duplicates
from harness.data.shingles import document_shingles, sketches, word_hashes
from harness.data.split import validation_documents

from .synthetic import prose, silent, text_dir


def jaccard(a, b):
    hashes, owner = document_shingles([a, b], 5)
    first, second = set(hashes[owner == 0].tolist()), set(hashes[owner == 1].tolist())
    return len(first & second) / len(first | second)


def words(text):
    return len(word_hashes(np.frombuffer(text.encode(), np.uint8))[0])


def test_words():
    assert words("def f(x_1): return 'naïve'") == 5
    assert words("東京 タワーx y") == 7
    assert words("... \n") == 0


def test_shingles_stay_within_documents():
    a, b = prose(1, 20).encode(), prose(2, 30).encode()
    together, owner = document_shingles([a, b], 16)
    apart = [document_shingles([text], 16)[0] for text in (a, b)]
    assert [len(part) for part in apart] == [5, 15]
    assert np.array_equal(together, np.concatenate(apart))
    assert np.bincount(owner).tolist() == [5, 15]


def test_sketch_estimates_jaccard_similarity():
    base = prose(3, 2000).split()
    for changed in (0, 300, 1000, 1900):
        a, b = " ".join(base).encode(), " ".join([*base[changed:], *prose(4, changed + 1).split()]).encode()
        one, two = sketches([a, b])
        assert abs((one == two).mean() - jaccard(a, b)) < 0.15


def test_sketch_does_not_depend_on_the_batch():
    texts = [prose(seed, 3 + seed * 40).encode() for seed in range(5)]
    assert np.array_equal(sketches(texts), np.concatenate([sketches([text]) for text in texts]))


def test_exact_duplicates_keep_the_first():
    digests = np.array([[5, 1], [7, 1], [5, 1], [5, 2], [7, 1]], np.uint64)
    assert exact_duplicates(digests).tolist() == [False, False, True, False, True]


@pytest.mark.parametrize("keys_at_a_time", [8_000_000, 7])
def test_near_duplicates_find_planted_copies_only(keys_at_a_time, monkeypatch):
    monkeypatch.setattr("harness.data.dedup.SORTED_KEYS", keys_at_a_time)
    texts = [prose(seed, 400) for seed in range(40)]
    edited = texts[5].split()
    edited[100:104] = ["an", "entirely", "new", "phrase"]
    half = " ".join([*texts[6].split()[:200], *prose(99, 200).split()])
    texts += [" ".join(edited), half, "short", "short too"]
    table = sketches([text.encode() for text in texts])
    found = near_duplicates(table, np.arange(len(texts)))
    assert np.flatnonzero(found).tolist() == [40]


def test_split_takes_whole_groups_and_about_the_fraction():
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(100, dtype=np.uint64) * 997, 5))
    sizes = np.random.default_rng(1).integers(50, 150, len(groups))
    held = validation_documents(groups, sizes, 0.1)
    assert not set(groups[held].tolist()) & set(groups[~held].tolist())
    assert 0.08 < sizes[held].sum() / sizes.sum() <= 0.1


def test_split_of_very_few_documents():
    sizes = np.array([1000, 1000, 1000])
    assert validation_documents(np.array([3, 1, 2], np.uint64), sizes, 0.02).tolist() == [False, True, False]
    assert not validation_documents(np.array([3, 3, 3], np.uint64), sizes, 0.3).any()


def cleaned(folder, tmp_path, **values):
    out = tmp_path / "cleaned"
    out.mkdir()
    return clean(text_dir(folder, **values), out, silent), out


def names_of(out, fate):
    chosen = fates(out) == fate
    parts = [read_texts(g, chosen[g.first : g.first + g.count])[0] for g in row_groups(out)]
    return [name for part in parts for name in part]


def test_clean_drops_copies_and_says_so(folder, tmp_path):
    text = (folder / "07.txt").read_text()
    (folder / "copy.txt").write_text(text)
    (folder / "nearly.txt").write_text(text + "one more line\n")
    (folder / "tiny.txt").write_text("tiny")
    facts, out = cleaned(folder, tmp_path)
    assert facts.drops == {"short": 1, "exact_duplicate": 1, "near_duplicate": 1, "leaky_validation": 0}
    assert names_of(out, Fate.near_duplicate) == ["nearly.txt"]
    assert facts.leak == 0


def test_every_document_is_listed_with_its_hash_and_fate(folder, tmp_path):
    (folder / "copy.txt").write_text((folder / "07.txt").read_text())
    _, out = cleaned(folder, tmp_path)
    header, *lines = [line.split("\t") for line in (out / "documents.tsv").read_text().splitlines()]
    assert header == ["name", "sha256", "bytes", "fate"]
    listed = {name: (digest, int(size), fate) for name, digest, size, fate in lines}
    assert len(listed) == len(list(folder.iterdir()))
    raw = (folder / "07.txt").read_bytes()
    assert listed["07.txt"][:2] == (hashlib.sha256(raw).hexdigest(), len(raw))
    assert listed["copy.txt"][2] == "exact_duplicate"


def test_planted_leak_is_measured_and_closed(folder, tmp_path):
    # Every document quotes the next one's first 60 words: too little for a near-copy, plenty for a leak.
    texts = [(folder / f"{i:02d}.txt").read_text() for i in range(30)]
    for index in range(1, 30):
        quote = " ".join(texts[index - 1].split()[:60])
        (folder / f"{index:02d}.txt").write_text(texts[index] + quote + "\n")
    for index in range(100, 160):
        (folder / f"{index}.txt").write_text(prose(index))
    facts, out = cleaned(folder, tmp_path)
    assert facts.leak_before_drop > 0.02
    assert facts.drops["leaky_validation"] > 0
    assert facts.leak == 0
    assert not set(names_of(out, Fate.val)) & set(names_of(out, Fate.train))


def test_naive_leak_counts_what_duplicates_would_give_away(folder, tmp_path):
    for path in list(folder.iterdir()):
        (folder / f"copy-{path.name}").write_text(path.read_text())
    facts, _ = cleaned(folder, tmp_path)
    assert facts.naive_leak > 0.5
    assert facts.leak == 0


def test_corpus_hash_is_a_function_of_the_text(folder, tmp_path):
    first, out = cleaned(folder, tmp_path)
    assert (document_rows(out)["bytes"] > 0).all()
    (tmp_path / "other").mkdir()
    for path in folder.iterdir():
        (tmp_path / "other" / f"renamed-{path.name}").write_text(path.read_text())
    (tmp_path / "b").mkdir()
    again, _ = cleaned(tmp_path / "other", tmp_path / "b")
    assert again.corpus_hash == first.corpus_hash
    (folder / "00.txt").write_text(prose(0) + "x")
    (tmp_path / "c").mkdir()
    assert cleaned(folder, tmp_path / "c")[0].corpus_hash != first.corpus_hash
