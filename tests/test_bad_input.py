"""What people type by mistake: one line that says what is wrong, the right exit code, nothing lost."""

import shutil

import pytest

BASE = ["corpus=text_dir", "corpus.name=mine", "tokenizer=bytes", "context=32", "hardware.compile=never"]


def one_line(done, code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.strip().splitlines() if line.startswith("harness ")]
    assert len(lines) == 1, done.stderr
    assert "traceback" not in done.stderr.lower()  # nor the hint how to see that of an unforeseen error
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    return folder


def test_an_empty_corpus(harness, corpus, tmp_path):
    one_line(harness("prepare", *BASE, f"corpus.path={corpus}", cwd=tmp_path), 2, str(corpus))


def test_a_corpus_that_is_not_there(harness, tmp_path):
    one_line(harness("prepare", *BASE, "corpus.path=nowhere", cwd=tmp_path), 2, "nowhere")


def test_a_corpus_smaller_than_one_batch(harness, corpus, tmp_path):
    for number in range(4):
        (corpus / f"{number}.txt").write_text(
            f"Document {number} says something short, but it says it well. " * 3
        )
    words = [*BASE, f"corpus.path={corpus}"]
    assert harness("prepare", *words, cwd=tmp_path).returncode == 0
    train = harness("train", *words, "horizon.batch_tokens=65536", "horizon.tokens=1e5", cwd=tmp_path)
    one_line(train, 2, "horizon.tokens")  # 1e5 is no integer to Hydra
    train = harness("train", *words, "horizon.batch_tokens=65536", "horizon.tokens=100_000", cwd=tmp_path)
    one_line(train, 1, "batch")


def test_a_batch_of_broken_sequences(harness, toy_root, tmp_path):
    words = ["corpus=text_dir", "corpus.name=toy", "tokenizer=bytes", f"corpus.path={toy_root / 'texts'}"]
    words += [
        f"data_dir={toy_root / 'data'}",
        "context=100",
        "horizon.batch_tokens=512",
        "horizon.tokens=9999",
    ]
    one_line(harness("train", *words, cwd=tmp_path), 2, "multiple of the context")


def test_a_table_of_too_few_runs_or_none(harness, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("params_total,tokens,loss\n1e6,1e8,3.1\n2e6,1e8,3.0\n")
    one_line(harness("fit", f"runs={table}", cwd=tmp_path), 1, "2 usable rows")
    table.write_text("params_total,tokens,loss\n")
    one_line(harness("fit", f"runs={table}", cwd=tmp_path), 2, "holds no rows")
    table.write_text("size,tokens,loss\n1,2,3\n")
    one_line(harness("fit", f"runs={table}", cwd=tmp_path), 2, "params_total")
    one_line(harness("fit", f"runs={table}", 'where=["loss~3"]', cwd=tmp_path), 2, "loss~3")
    one_line(harness("fit", f"runs={table}", "where=loss<3", cwd=tmp_path), 2, """'where=["loss<3"]'""")
    one_line(
        harness("fit", f"runs={table}", "columns.tokens=D", cwd=tmp_path), 2, "columns={tokens: D}", "size"
    )


def test_half_a_question(harness, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("params_total,tokens,loss\n1e6,1e8,3.1\n")
    one_line(harness("forecast", f"runs={table}", "params=1e9", cwd=tmp_path), 2, "tokens=")
    one_line(harness("fit", f"runs={table}", "flops=[-1]", cwd=tmp_path), 2, "positive")


def test_a_score_without_a_forecast(harness, tmp_path):
    one_line(harness("score", "group=nothing", cwd=tmp_path), 2, "forecast.json")


def test_a_cell_that_is_no_run(harness, tmp_path):
    one_line(harness("train", "cell=nowhere", cwd=tmp_path), 2, "nowhere")
    (tmp_path / "empty").mkdir()
    one_line(harness("train", "cell=empty", cwd=tmp_path), 2, "config.json")


def test_an_axis_over_the_group(harness, toy_root, tmp_path):
    words = ["corpus=text_dir", "corpus.name=toy", "tokenizer=bytes", f"corpus.path={toy_root / 'texts'}"]
    words += [
        f"data_dir={toy_root / 'data'}",
        "context=32",
        "horizon.tokens=9999",
        'sweep.axes=["group=a,b"]',
    ]
    one_line(harness("sweep", *words, cwd=tmp_path), 2, "one group")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ('sweep.axes=["cost.mfu=0.1"]', "the axis cost.mfu=0.1 changes no run"),
        ('sweep.axes=["next=3"]', "the axis next=3 changes no run"),
        ('sweep.axes=["optim.weight_decay=nan"]', "optim.weight_decay must be a finite number"),
        ('sweep.axes=["hardware.peak_flops=inf"]', "hardware.peak_flops must be a finite number"),
        ("cost.price_per_device_hour=nan", "cost.price_per_device_hour"),
        ('sweep.axes="seed=1,2"', "write a list"),
    ],
)
def test_a_plan_of_what_no_cell_could_be(harness, toy_root, tmp_path, word, said):
    words = ["corpus=text_dir", "corpus.name=toy", "tokenizer=bytes", f"corpus.path={toy_root / 'texts'}"]
    words += [f"data_dir={toy_root / 'data'}", "context=32", "horizon.tokens=9999"]
    axes = [] if word.startswith("sweep") else ['sweep.axes=["seed=1,2"]']
    one_line(harness("plan", *words, *axes, word, cwd=tmp_path), 2, said)
    assert not (tmp_path / "runs").exists()


def test_a_row_with_too_many_fields_or_a_column_twice(harness, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("params_total,tokens,loss\n1,000,000,1e9,3\n")
    one_line(harness("fit", f"runs={table}", cwd=tmp_path), 2, "row 2")
    table.write_text("params_total,tokens,loss,loss\n1e6,1e9,3,4\n")
    one_line(harness("fit", f"runs={table}", cwd=tmp_path), 2, "twice")


def test_numbers_that_are_none(harness, tmp_path):
    one_line(harness("plan", "optim.lr=nan", cwd=tmp_path), 2, "optim.lr")
    one_line(harness("forecast", "runs=t.csv", "flops=0", cwd=tmp_path), 2, "positive")
    one_line(harness("train", "+foo=1", cwd=tmp_path), 2, "foo")


def test_a_damaged_shard(harness, toy_root, tmp_path):
    shutil.copytree(toy_root / "data", tmp_path / "data")
    (shard,) = (tmp_path / "data" / "tokens").glob("*/train-00000.bin")
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    words = ["corpus=text_dir", "corpus.name=toy", "tokenizer=bytes", f"corpus.path={toy_root / 'texts'}"]
    words += ["context=32", "horizon.batch_tokens=512", "horizon.tokens=9999"]
    one_line(harness("train", *words, cwd=tmp_path), 2, "train-00000.bin")


def test_an_empty_axis(harness, toy_root, tmp_path):
    words = ["corpus=text_dir", "corpus.name=toy", "tokenizer=bytes", f"corpus.path={toy_root / 'texts'}"]
    words += [f"data_dir={toy_root / 'data'}", "horizon.tokens=9999", 'sweep.axes=["seed=range(0)"]']
    one_line(harness("sweep", *words, cwd=tmp_path), 2, "no cells")


def test_a_setting_beside_a_cell_that_it_would_not_reach(harness, tmp_path):
    one_line(harness("train", "cell=runs/x/y", "seed=1", cwd=tmp_path), 2, "seed=1 would not reach it")
    one_line(harness("train", "cell=", cwd=tmp_path), 2, "cell= is neither")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "--model=27k"], "no option --model=27k"),
        (["plan", "optm.lr=1"], "did you mean optim.lr?"),
        (["train", "lr=1"], "did you mean optim.lr?"),
        (["prepare", "+corpsu=x"], "did you mean corpus?"),
        (["plan", "sweep.axes=model=27k,56k"], """'sweep.axes=["model=27k,56k"]'"""),
        (["prepare", "corpus.path=/tmp/ünï"], """'corpus.path="/tmp/ünï"'"""),
        (["plan", "horizon"], "'horizon' sets nothing"),
        (["bench"], "what="),
        (["bench", "trian"], "'trian'"),
        (["sweep", "group=mien"], "runs/mien"),
    ],
)
def test_a_slip_is_told_with_what_would_be_right(harness, tmp_path, words, said):
    one_line(harness(*words, cwd=tmp_path), 2, said)
