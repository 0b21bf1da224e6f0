"""The Python API on digits: what it returns is data, with types."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kdbench
from kdbench.data.readers import registry
from kdbench.errors import UserError
from kdbench.report.tables import tables
from kdbench.store.folder import RunFolder

BOARD = Path(__file__).parent.parent / "leaderboard" / "results.csv"
LITTLE = {"Train.epochs": 1, "Train.warmup": 0, "Measures.corruptions": False, "Measures.noise": ()}

pytestmark = pytest.mark.usefixtures("own_plugins")


def plan(**selections):
    return kdbench.plan_runs(
        dataset="digits", student="resnet8", teacher="resnet14", **{**LITTLE, "Split.validation": 0.1, **selections}
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """ce and kd, and the folder of their runs."""
    runs = tmp_path_factory.mktemp("runs")
    return kdbench.run_all(plan(methods=["ce", "kd"]), runs), runs


def test_keywords_mean_what_the_words_of_the_command_line_mean():
    words = "methods=ce,kd", "dataset=digits", "seeds=0,1", "Train.epochs=9", "Measures.noise=(0.1, 0.2)"
    mixed = kdbench.plan_runs(
        "dataset=digits", methods=["ce", "kd"], seeds=range(2), **{"Train.epochs": 9, "Measures.noise": (0.1, 0.2)}
    )
    assert mixed == kdbench.plan_runs(*words)
    assert len(mixed) == 5
    assert mixed[0].is_teacher


def test_the_precision_that_a_plan_chose_is_a_warning(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with pytest.warns(UserWarning, match="^precision: float32, because"):
        chosen = plan(methods="ce", **{"Train.precision": "auto"})
    assert chosen == plan(methods="ce")


def test_a_wrong_selection_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(UserError, match="did you mean"):
        kdbench.plan_runs(method="kd")
    with pytest.raises(UserError, match="workers=N to run_all"):
        kdbench.plan_runs(workers=2)
    with pytest.raises(UserError, match="needs a data folder"):
        kdbench.run_all(kdbench.plan_runs(dataset="cifar10", recipe="smoke"), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_results_are_typed_rows_of_the_runs_that_were_asked_for(trained):
    results, runs = trained
    assert list(results["method"]) == ["ce", "kd"]
    assert list(results["status"]) == ["finished", "finished"]
    assert results["accuracy.last"].dtype == "float64"
    assert results["seed"].dtype == "Int64"
    assert results["images_seen"].min() > 0
    stored = RunFolder(runs, results["run"][1]).result()
    for name in ("accuracy.last", "seed", "provenance.gpus", "weights.sha256", "teacher.run"):
        assert results[name][1] == stored[name]
    assert results["teacher"].isna().tolist() == [True, False]


def test_finished_runs_are_read_and_not_trained_again(trained):
    results, runs = trained
    again = kdbench.run_all(plan(methods="ce,kd"), runs)
    assert list(again["provenance.finished_at"]) == list(results["provenance.finished_at"])
    loaded = kdbench.load_results(runs)
    assert set(results["run"]) < set(loaded["run"])
    assert len(loaded) == 3, "the teacher too"


def test_a_failed_run_is_a_row(tmp_path):
    results = kdbench.run_all(plan(methods="ce", **{"SGD.lr": 1e30}), tmp_path)
    assert list(results["status"]) == ["failed"]
    assert "finite" in results["error"][0]


def test_tables_rank_the_results(trained):
    results, runs = trained
    (table,) = kdbench.make_tables(results)
    assert {line.method for line in table.rows} == {"ce", "kd"}
    stored = [RunFolder(runs, run).result() for run in results["run"]]
    (same,) = kdbench.make_tables(stored)
    assert [(line.method, line.rank, line.accuracy) for line in table.rows] == [
        (line.method, line.rank, line.accuracy) for line in same.rows
    ]


def test_committed_rows_give_the_committed_tables():
    results = kdbench.load_results(BOARD)
    assert results["seed"].dtype == "Int64"
    assert results["provenance.clean"].dtype == "boolean"
    assert results["provenance.clean"].all()
    assert results["accuracy.last"].notna().all()
    from kdbench.report import records

    rows, _ = records.from_csv(BOARD.read_bytes(), "")
    committed = tables.tables(records.canonical(rows))
    assert [
        [(line.method, line.teacher, line.rank, line.accuracy, line.p_of("robustness.corruptions")) for line in t.rows]
        for t in kdbench.make_tables(results)
    ] == [
        [(line.method, line.teacher, line.rank, line.accuracy, line.p_of("robustness.corruptions")) for line in t.rows]
        for t in committed
    ]


def test_unreadable_results_are_skipped_with_a_warning(trained, tmp_path):
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "result.json").write_text("{")
    with pytest.warns(UserWarning, match="torn.*skipped"):
        assert kdbench.load_results(tmp_path).empty
    with pytest.raises(UserError, match="there is no folder of runs"):
        kdbench.load_results(tmp_path / "none")


def test_the_student_has_the_accuracy_of_its_result(trained):
    results, runs = trained
    student = kdbench.load_student(runs / results["run"][1])
    assert not student.training
    arrays = registry.read("digits", None)
    images = torch.from_numpy(arrays.test_images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        logits = student(images)
    assert logits.shape == (len(images), 10)
    accuracy = 100 * (logits.argmax(1) == torch.from_numpy(arrays.test_labels)).double().mean().item()
    assert accuracy == pytest.approx(results["accuracy.last"][1], abs=0.1)


def test_a_folder_without_weights_has_no_student(tmp_path):
    with pytest.raises(UserError, match=r"not the folder of a finished run \(it has no config.gin\)"):
        kdbench.load_student(tmp_path)


def test_import_is_cheap():
    program = (
        "import sys, kdbench\n"
        "heavy = {'torch', 'pandas', 'numpy', 'gin', 'kdbench.api'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(kdbench.__all__) <= set(dir(kdbench))\n"
        "specs = kdbench.plan_runs(methods='kd')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="no attribute 'train_all'"):
        kdbench.train_all  # noqa: B018
