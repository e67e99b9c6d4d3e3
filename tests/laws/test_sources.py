"""Foreign logs: what other tools wrote is recognised by its content and read as the same runs."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from harness.errors import CannotAnswer, WrongInput
from harness.laws.collect import summary
from harness.laws.observations import Observations
from harness.laws.sources.mlflow import read_mlflow
from harness.laws.sources.source import Source, load, source_of
from harness.laws.tables import observations_from_table

RUNS = [("a", 1000, 20_000, 3.5), ("b", 2000, 20_000, 3.25), ("c", 2000, 40_000, 3.0)]
"""Name, parameters, tokens, last loss; every log first holds a loss of 9."""


def numbers(found: Observations) -> list[tuple[float, float, float]]:
    return list(zip(found.params.tolist(), found.tokens.tolist(), found.loss.tolist(), strict=True))


EXPECTED = [(params, tokens, loss) for _, params, tokens, loss in RUNS]
LOSS = {"loss": "val/loss"}


def test_tensorboard_scalars_and_hyperparameters_of_torch(tmp_path):
    """`add_hparams` writes to a folder named by the time, inside the run's."""
    from torch.utils.tensorboard import SummaryWriter

    for name, params, tokens, loss in RUNS:
        with SummaryWriter(tmp_path / "logs" / name) as writer:
            writer.add_hparams({"params_total": params, "corpus": "prose", "lr": 0.1}, {"done": 1})
            for step, value in ((0, 9.0), (10, loss)):
                writer.add_scalar("val/loss", value, step)
                writer.add_scalar("tokens", tokens * step / 10, step)
    assert source_of(tmp_path) is Source.tensorboard
    found = observations_from_table(tmp_path, ["corpus=prose", "lr<1"], columns=LOSS)
    assert numbers(found) == EXPECTED
    assert found.run_ids == ("logs/a", "logs/b", "logs/c")
    assert [row["step"] for row in load(tmp_path).rows] == ["10", "10", "10"]


def test_tensorboard_splits_and_tensor_scalars_as_keras_writes_them(tmp_path):
    from tensorboard.summary import Writer

    for name, params, tokens, loss in RUNS:
        for split, shift in (("train", 1.0), ("validation", 0.0)):
            writer = Writer(str(tmp_path / name / split))
            for step, value in ((0, 9.0), (10, loss + shift)):
                writer.add_scalar("epoch_loss", value, step)
            if split == "train":
                writer.add_scalar("params_total", params, 0)
                writer.add_scalar("tokens", tokens, 10)
            writer.close()
    columns = {f"{name}": f"train/{name}" for name in ("params_total", "tokens")}
    found = observations_from_table(tmp_path, columns={**columns, "loss": "validation/epoch_loss"})
    assert (found.run_ids, numbers(found)) == (("a", "b", "c"), EXPECTED)


def failure() -> object:
    """How the hparams plugin says that a session failed; torch itself always writes success."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    content = HParamsPluginData(session_end_info=SessionEndInfo(status=STATUS_FAILURE)).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=content)
    said = Summary.Value(tag="_hparams_/session_end_info", metadata=SummaryMetadata(plugin_data=plugin))
    return Summary(value=[said])


def test_tensorboard_runs_that_broke_off_or_say_nothing_are_dropped_by_name(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    for name, params, tokens, loss in [*RUNS, ("d", 1, 1, 1.0), ("e", 1, 2, float("nan"))]:
        with SummaryWriter(tmp_path / name) as writer:
            for tag, value in (("params_total", params), ("tokens", tokens), ("loss", 9), ("loss", loss)):
                writer.add_scalar(tag, value, 1)
            if name == "d":
                writer._get_file_writer().add_summary(failure())
    with SummaryWriter(tmp_path / "silent"):
        pass
    found = observations_from_table(tmp_path)
    assert numbers(found) == EXPECTED
    assert {item.name: item.reason for item in found.dropped} == {
        "silent": "nothing was logged",
        "d": "failed",
        "e": "loss is not finite",
    }


def test_tensorboard_without_sizes_says_what_there_is_to_map(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "a") as writer:
        writer.add_scalar("val/loss", 3.0, 1)
    with pytest.raises(
        WrongInput, match=r"no column 'params_total'; there are run_id, val/loss, step.*columns="
    ):
        observations_from_table(tmp_path, columns=LOSS)


def test_tensorboard_folders_need_tensorboard(tmp_path, monkeypatch):
    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing.plugin_event_accumulator", None)
    with pytest.raises(WrongInput, match="pip install tensorboard"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an event file" * 50])
def test_damaged_event_files_hold_no_scalars(tmp_path, content):
    (tmp_path / "events.out.tfevents.1").write_bytes(content)
    with pytest.raises(CannotAnswer, match="hold no scalars"):
        load(tmp_path)


EXPERIMENT = """artifact_location: file:///somewhere/mlruns/860435812418829957
creation_time: 1795314165780
experiment_id: '860435812418829957'
last_update_time: 1795314165780
lifecycle_stage: active
name: sweep
"""
RUN = """artifact_uri: file:///somewhere/mlruns/860435812418829957/{name}/artifacts
end_time: 1795314165833
entry_point_name: ''
experiment_id: '860435812418829957'
lifecycle_stage: {stage}
run_id: {name}
run_name: called {name}
source_name: ''
source_type: 4
status: {status}
tags: []
user_id: root
"""


def write_mlflow_run(
    store: Path, name: str, files: dict[str, str], status: int = 3, stage: str = "active"
) -> None:
    """The files that mlflow-skinny 3.17.2 wrote for a run."""
    run = store / "860435812418829957" / name
    experiment = store / "860435812418829957" / "meta.yaml"
    texts = {run / "meta.yaml": RUN.format(name=name, status=status, stage=stage), experiment: EXPERIMENT}
    for path, text in {**texts, **{run / key: text for key, text in files.items()}}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def mlflow_files(params: int, tokens: int, loss: float) -> dict[str, str]:
    """The later value lies earlier in the file, as it may after a resumed run."""
    return {
        "params/params_total": str(params),
        "params/loss": "cross_entropy",
        "metrics/tokens": f"1795314165833 {float(tokens)} 2\n",
        "metrics/val/loss": f"1795314165833 {loss} 2\n1795314165831 9.0 0\n",
        "tags/mlflow.user": "root",
    }


def test_mlflow_runs_with_status_and_nested_metrics(tmp_path):
    store = tmp_path / "mlruns"
    for name, *values in RUNS:
        write_mlflow_run(store, name, mlflow_files(*values))
    write_mlflow_run(store, "f", mlflow_files(1, 1, 1.0), status=4)
    write_mlflow_run(store, "k", mlflow_files(1, 1, 1.0), status=5)
    write_mlflow_run(store, "r", mlflow_files(1, 1, 1.0), status=1)
    write_mlflow_run(store, "n", mlflow_files(1, 1, float("nan")))
    write_mlflow_run(store, "x", mlflow_files(1, 1, 1.0), stage="deleted")
    for root in (tmp_path, store, store / "860435812418829957"):
        assert source_of(root) is Source.mlflow
        found = observations_from_table(root, columns=LOSS)
        assert (numbers(found), found.groups) == (EXPECTED, ("sweep",) * 3)
    assert summary(found.dropped) == (
        "1 deleted in MLflow, 1 failed, 1 killed, 1 loss is not finite, 1 running"
    )
    one = observations_from_table(store / "860435812418829957" / "b", columns=LOSS)
    assert numbers(one) == EXPECTED[1:2]


def test_mlflow_as_the_library_writes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny (extra: trackers) is not installed")
    mlflow.set_tracking_uri(f"file://{tmp_path}/mlruns")
    mlflow.set_experiment("sweep")
    for name, params, tokens, loss in RUNS:
        with mlflow.start_run(run_name=name):
            mlflow.log_param("params_total", params)
            for step, value in ((0, 9.0), (10, loss)):
                mlflow.log_metrics({"val/loss": value, "tokens": tokens * step / 10}, step=step)
    with pytest.raises(ZeroDivisionError), mlflow.start_run(run_name="d"):
        mlflow.log_param("params_total", 1 / 0)
    found = observations_from_table(tmp_path, columns=LOSS)
    assert (numbers(found), found.groups) == (EXPECTED, ("sweep",) * 3)
    assert summary(found.dropped) == "1 failed"
    assert {row["run_name"] for row in read_mlflow(tmp_path).rows} == {"a", "b", "c", "d"}


def test_a_damaged_mlflow_metric_is_named(tmp_path):
    files = {**mlflow_files(100, 1000, 2.5), "metrics/val/loss": "1795314165833 2.5 ten\n"}
    write_mlflow_run(tmp_path / "mlruns", "a", files)
    with pytest.raises(WrongInput, match=r"metrics/val/loss is no log of MLflow .*'ten'"):
        read_mlflow(tmp_path / "mlruns")


def test_an_mlflow_store_without_runs_says_so(tmp_path):
    (tmp_path / "meta.yaml").write_text(EXPERIMENT)
    with pytest.raises(CannotAnswer, match="an MLflow folder without runs"):
        load(tmp_path)


def write_rows(path: Path, rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    return path


def test_wandb_table_of_runs(tmp_path):
    header = ["Name", "State", "Notes", "Tags", "ID", "Group", "model.params_total", "tokens", "val/loss"]
    rows = [[name, "finished", "-", "", f"id{name}", "g", *rest] for name, *rest in RUNS]
    rows += [["a", state, "", "", state, "g", 1, 1, 1.0] for state in ("crashed", "failed", "running")]
    rows.append(["a", "finished", "", "", "nan", "g", 1, 1, "NaN"])
    path = write_rows(tmp_path / "export.csv", [header, *rows])
    assert source_of(path) is Source.wandb_runs
    columns = {"params_total": "model.params_total", **LOSS}
    found = observations_from_table(path, ["Tags!=old"], columns=columns)
    assert (found.run_ids, numbers(found)) == (("ida", "idb", "idc"), EXPECTED)
    assert found.groups == ("g",) * 3
    assert summary(found.dropped) == "1 crashed, 1 failed, 1 loss is not finite, 1 running"


def test_wandb_names_may_repeat_where_there_is_no_id(tmp_path):
    rows = [["same", "finished", *rest] for _, *rest in RUNS]
    path = write_rows(tmp_path / "export.csv", [["Name", "State", "params_total", "tokens", "loss"], *rows])
    found = observations_from_table(path)
    assert found.run_ids == ("same (row 1)", "same (row 2)", "same (row 3)")
    assert numbers(found) == EXPECTED


def test_wandb_chart_ends_where_each_run_ends(tmp_path):
    """Curves of different lengths; the axis is tokens; extremes of the smoothing are not metrics."""
    metrics = ("params_total", "val/loss")
    names = [f"{run} - {metric}" for run, *_ in RUNS for metric in metrics]
    header = ["tokens", *(text for name in names for text in (name, f"{name}__MIN", f"{name}__MAX"))]
    rows: list[list[object]] = [header]
    for at in (10_000, 20_000, 40_000):
        row: list[object] = [at]
        for _, params, tokens, loss in RUNS:
            value = loss if at == tokens else 9.0
            row += [params, 0, 1e9, value, 0, 1e9] if at <= tokens else [""] * 6
        rows.append(row)
    path = write_rows(tmp_path / "chart.csv", rows)
    assert source_of(path) is Source.wandb_history
    found = observations_from_table(path, columns=LOSS)
    assert (found.run_ids, numbers(found)) == (("a", "b", "c"), EXPECTED)


def test_a_wandb_chart_of_a_run_that_ends_in_nan_is_a_diverged_run(tmp_path):
    header = ["tokens", "x - params_total", "x - loss", "y - params_total", "y - loss"]
    path = write_rows(tmp_path / "chart.csv", [header, [1, 7, 9.0, 7, 9.0], [2, 7, 3.0, 7, "NaN"]])
    found = observations_from_table(path)
    assert found.run_ids == ("x",)
    assert [(item.name, item.reason) for item in found.dropped] == [("y", "loss is not finite")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "holds no rows"),
        ("header.csv", b"params_total,tokens,loss\n", "holds no rows"),
        ("binary.csv", bytes(range(256)), "is not UTF-8 text"),
        ("utf16.csv", "a,b\n".encode("utf-16"), "is not UTF-8 text"),
        ("ragged.csv", b"a,b\n1,2,3\n", "row 2 has more fields than the header's 2"),
        ("twice.csv", b"a,b,a\n1,2,3\n", "the column 'a' twice"),
        ("empty.jsonl", b"\n", "holds no rows"),
        ("list.jsonl", b"[1]\n", "every line must be an object"),
        ("torn.jsonl", b'{"a": 1}\n{"a"', "cannot be read as .jsonl"),
        ("binary.parquet", bytes(range(256)), "cannot be read as .parquet"),
        ("empty.parquet", b"", "cannot be read as .parquet"),
    ],
)
def test_a_damaged_table_gets_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WrongInput, match=message) as caught:
        load(path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


SAME = [
    {"run_id": "a", "params_total": "1e6", "loss": "3.5"},
    {"run_id": "b", "params_total": "2e6", "loss": ""},
]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("semicolons.csv", "run_id;params_total;loss\na;1e6;3.5\nb;2e6;\n"),
        ("tabs.tsv", "\ufeffrun_id\tparams_total\tloss\r\na\t1e6\t3.5\r\nb\t2e6\r\n"),
        ("bars.csv", "run_id | params_total | loss\na|1e6|3.5\nb|2e6|\n"),
        ("blanks.csv", '" run_id ",params_total , loss\na, 1e6, 3.5\nb, 2e6,\n'),
    ],
)
def test_a_table_as_others_write_it(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", newline="")
    assert [dict(row) for row in load(path).rows] == SAME


def test_columns_without_a_name_may_repeat(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(",,loss\n0,0,3.5\n")
    assert load(path).rows[0]["loss"] == "3.5"


def test_objects_inside_a_row_are_columns(tmp_path):
    import pyarrow
    import pyarrow.parquet as parquet

    row = {"name": "a", "config": {"params": 1000, "optim": {"lr": 0.5}}, "loss": None}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "t.parquet")
    for name in ("t.jsonl", "t.parquet"):
        found = {"name": "a", "config.params": "1000", "config.optim.lr": "0.5", "loss": ""}
        assert [dict(row) for row in load(tmp_path / name).rows] == [found]


def test_an_unknown_path_lists_what_is_understood(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "deep").mkdir(parents=True)
    (tmp_path / "other" / "deep" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "other" / "meta.yaml").write_text("package:\n  name: recipe\n")
    (tmp_path / "notes.txt").write_text("runs")
    (tmp_path / "events.out.tfevents.1.host").write_bytes(b"")
    for name, message in (
        ("empty", "is empty; give run directories, TensorBoard"),
        ("other", "holds no runs that are understood here; give run directories, TensorBoard"),
        ("notes.txt", "is no table of runs; give run directories, TensorBoard"),
        ("nothing", "does not exist; give run directories, TensorBoard"),
        ("events.out.tfevents.1.host", "give the folder it lies in"),
    ):
        with pytest.raises(WrongInput, match=message) as caught:
            source_of(tmp_path / name)
        assert "\n" not in str(caught.value)
