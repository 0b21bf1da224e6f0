"""The Python API on digits: what it returns is data, with types."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import kdbench
from kdbench import api
from kdbench.data.readers import registry
from kdbench.errors import UserError
from kdbench.report.tables import tables
from kdbench.store.folder import RunFolder

BOARD = Path(__file__).parents[2] / "leaderboard" / "results.csv"
LITTLE = {"Train.epochs": 1, "Train.warmup": 0, "Measures.corruptions": False, "Measures.noise": ()}

pytestmark = pytest.mark.usefixtures("own_plugins")


def plan(runs="runs", **selections):
    return kdbench.plan(
        "dataset=digits student=resnet8 teacher=resnet14",
        runs=runs,
        **{**LITTLE, "Split.validation": 0.1, **selections},
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """ce and kd, and the folder of their runs."""
    runs = tmp_path_factory.mktemp("runs")
    return plan(runs, methods=["ce", "kd"]).run(), runs


def test_keywords_mean_what_the_words_of_the_command_line_mean():
    words = "methods=ce,kd", "dataset=digits", "seeds=0,1", "Train.epochs=9", "Measures.noise=(0.1, 0.2)"
    mixed = kdbench.plan(
        "dataset=digits", methods=["ce", "kd"], seeds=range(2), **{"Train.epochs": 9, "Measures.noise": (0.1, 0.2)}
    )
    assert mixed == kdbench.plan(words)
    assert len(mixed.runs) == 5
    assert mixed.runs[0].is_teacher
    quoted = "methods=ce,kd dataset=digits 'Measures.noise=(0.1, 0.2)'"
    assert mixed == kdbench.plan(quoted, seeds="0-1", Train_epochs=9)


def test_a_plan_is_shown_as_a_table(tmp_path):
    shown = kdbench.plan("methods=ce,kd dataset=digits", runs=tmp_path / "<runs>", KD_temperature="2,3")
    head, names, *rows = repr(shown).splitlines()
    assert head == f"4 runs in {tmp_path}/<runs>: 0 finished, 4 to do"
    assert names.split() == ["run", "state", "protocol", "parameters", "teacher"]
    assert [run.id in row for run, row in zip(shown.runs, rows, strict=True)] == [True] * 4
    assert "KD.temperature=3" in rows[3]
    page = shown._repr_html_()
    assert "&lt;runs&gt;" in page
    assert page.count("<tr") == 5


def test_a_plan_is_a_data_frame(tmp_path):
    frame = kdbench.plan("methods=ce,kd dataset=digits seeds=0,1", runs=tmp_path).to_frame()
    assert list(frame["purpose"]) == ["teacher", *["comparison"] * 4]
    assert list(frame["state"]) == ["to do"] * 5
    assert frame["seed"].dtype == "Int64"
    assert set(frame["teacher.run"].dropna()) == {frame["run"][0]}


def test_the_precision_that_a_plan_chose_is_a_warning(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with pytest.warns(UserWarning, match="^precision: float32, because"):
        chosen = plan(methods="ce", **{"Train.precision": "auto"})
    assert chosen == plan(methods="ce")


def test_a_wrong_selection_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(UserError, match="did you mean 'methods'"):
        kdbench.plan(method="kd")
    with pytest.raises(UserError, match="did you mean 'Train'"):
        kdbench.plan(Trian_epochs=2)
    with pytest.raises(UserError, match=r"pass workers=N to its run\(\)"):
        kdbench.plan("workers=2")
    with pytest.raises(UserError, match="cannot be separated: no closing quotation"):
        kdbench.plan("methods='kd")
    with pytest.raises(UserError, match="workers must be a positive integer, not 0"):
        kdbench.run("methods=ce", runs=tmp_path / "runs", workers=0)
    with pytest.raises(UserError, match="needs a data folder"):
        kdbench.run(dataset="cifar10", recipe="smoke", runs=tmp_path / "runs")
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
    again = plan(methods="ce,kd").run(runs)
    assert list(again["provenance.finished_at"]) == list(results["provenance.finished_at"])
    loaded = kdbench.load_results(runs)
    assert set(results["run"]) < set(loaded["run"])
    assert len(loaded) == 3, "the teacher too"
    assert repr(plan(runs, methods="ce,kd")).startswith(f"3 runs in {runs}: 3 finished, 0 to do")


def test_a_failed_run_is_a_row(tmp_path):
    results = kdbench.run("methods=ce dataset=digits", runs=tmp_path, **{**LITTLE, "SGD.lr": 1e30})
    assert list(results["status"]) == ["failed"]
    assert "finite" in results["error"][0]


def test_tables_rank_the_results(trained):
    results, runs = trained
    (table,) = kdbench.tables(results)
    assert set(table["method"]) == {"ce", "kd"}
    stored = [RunFolder(runs, run).result() for run in results["run"]]
    (same,) = kdbench.tables(stored)
    pd.testing.assert_frame_equal(table, same)
    assert table.attrs["title"].startswith("digits · resnet8")
    (chosen,) = kdbench.tables(results, baseline="kd", columns=["accuracy", "ece"])
    assert chosen["ece"].dtype == "float64"
    assert set(chosen["baseline"]) == {"kd"}
    with pytest.raises(UserError, match="unknown column 'acuracy'; did you mean 'accuracy'"):
        kdbench.tables(results, columns=["acuracy"])


def test_committed_rows_give_the_committed_tables():
    results = kdbench.load_results(BOARD)
    assert results["seed"].dtype == "Int64"
    assert results["provenance.clean"].dtype == "boolean"
    assert results["provenance.clean"].all()
    assert results["accuracy.last"].notna().all()
    from kdbench.report import records

    rows, _ = records.from_csv(BOARD.read_bytes(), "")
    committed = tables.tables(records.canonical(rows))
    names = ["accuracy", "p.corruptions"]
    made = kdbench.tables(results, columns=names)
    assert [len(table) for table in made] == [len(table.rows) for table in committed]
    for frame, table in zip(made, committed, strict=True):
        assert frame.attrs == {"title": table.title, "notes": table.notes}
        for (_, line), row in zip(frame.iterrows(), table.rows, strict=True):
            assert line["rank"] is pd.NA if row.rank is None else line["rank"] == row.rank
            assert line["n"] == (row.accuracy.n if row.accuracy else 0)
            p = row.p_of("robustness.corruptions")
            assert line["p.corruptions"] == pytest.approx(p, nan_ok=True) if p is not None else True
            if row.accuracy:
                assert line["accuracy"] == pytest.approx(row.accuracy.mean)
                assert row.runs[0]["method"] == line["method"]


def test_earlier_names_still_work(trained):
    results, runs = trained
    with pytest.warns(DeprecationWarning, match=r"use kdbench\.plan"):
        specs = kdbench.plan_runs("methods=ce", "dataset=digits", seeds=[1])
    assert specs == list(kdbench.plan("methods=ce dataset=digits seeds=1").runs)
    with pytest.warns(DeprecationWarning, match=r"use kdbench\.plan\(\.\.\.\)\.run"):
        again = kdbench.run_all(plan(methods="ce,kd").runs, runs)
    pd.testing.assert_frame_equal(again, results)
    with pytest.warns(DeprecationWarning, match=r"use kdbench\.tables"):
        (table,) = kdbench.make_tables(results)
    ranks = kdbench.tables(results)[0]["rank"]
    assert [row.rank for row in table.rows] == [None if pd.isna(rank) else rank for rank in ranks]


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


def test_a_run_without_a_readable_result_has_no_student(trained, tmp_path):
    results, runs = trained
    copied = shutil.copytree(runs / results["run"][1], tmp_path / results["run"][1])
    (copied / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"not the folder of a finished run \(it has no readable result.json\)"):
        kdbench.load_student(copied)


def test_names_of_packages_are_functions_whatever_is_imported():
    import kdbench.plan.spec
    import kdbench.run.execute

    assert kdbench.plan is api.plan
    assert kdbench.run is api.run


def test_import_is_cheap():
    program = (
        "import sys, kdbench\n"
        "heavy = {'torch', 'pandas', 'numpy', 'gin', 'kdbench.api'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(kdbench.__all__) <= set(dir(kdbench))\n"
        "plan = kdbench.plan('methods=kd')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="no attribute 'train_all'"):
        kdbench.train_all  # noqa: B018
