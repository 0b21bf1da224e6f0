"""Where trials are kept, and which runs count as tuned by them."""

from pathlib import Path

import pytest

from kdbench.cli.commands import tune
from kdbench.cli.main import main
from kdbench.plan import expand
from kdbench.plan import request as request_
from kdbench.report.folders import Reading, read_runs
from kdbench.store import studies
from kdbench.tune import trials

WORDS = [
    *("dataset=digits", "student=resnet8", "teacher=resnet14"),
    *("Train.epochs=2", "Train.warmup=0", "Split.validation=0.2", "Measures.corruptions=False", "Measures.images=10"),
]
RUNS = Path("runs")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KDBENCH_RUNS", raising=False)


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ([], 1), (["seeds=7"], 1), (["Machine.threads=1"], 1), (["Train.epochs=3"], 0), (["KD.temperature=3"], 0),
        (["student=resnet14"], 0), (["teacher=resnet20"], 0),
    ],
)  # fmt: skip
def test_a_study_counts_for_its_own_dataset_student_and_teacher_only(more, count):
    assert main(["tune", "kd", "trials=1", *WORDS]) == 0
    changed = {word.split("=")[0] for word in more}
    words = ["methods=kd", *(word for word in WORDS if word.split("=")[0] not in changed), *more]
    assert studies.tuning_of(expand.plan(request_.parse(words))[-1], RUNS)["tuning.trials"] == count


def test_the_folder_of_studies_is_no_run():
    assert main(["tune", "ce", "trials=1", *WORDS]) == 0
    assert read_runs(RUNS) == Reading()


def test_a_damaged_study_is_not_written_over(capsys):
    assert main(["tune", "ce", "trials=1", *WORDS]) == 0
    (path,) = RUNS.glob("tuning/*/study.json")
    path.write_text("{")
    assert main(["tune", "ce", "trials=1", *WORDS]) == 2
    assert "is not a readable study" in capsys.readouterr().err
    assert path.read_text() == "{"
    assert main(["run", "methods=ce", *WORDS]) == 0, "a run does not fail because of it"


def test_studies_of_a_product_are_apart_and_know_nothing_of_how_many_trials_there_are():
    def ids(*words):
        request, _ = tune.parse([*words, "teacher=resnet14", "Split.validation=0.2"])
        studies = trials.studies_of(request, expand.plan(request))
        assert all(sorted(spec.seed for spec in each.specs) == [0, 1] for each in studies)
        return [each.id for each in studies]

    studies = ids("ce,kd", "trials=4", "student=resnet8,resnet20", "seeds=0,1")
    assert len(set(studies)) == 4
    assert set(ids("kd,ce", "trials=9", "student=resnet20,resnet8", "seeds=1,0")) == set(studies)
    assert not set(ids("kd,ce", "trials=9", "student=resnet20", "seeds=1,0", "Train.epochs=5")) & set(studies)


def test_a_study_has_a_named_precision(monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    printed = []
    for precision in ("auto", "float32"):
        assert main(["tune", "kd", "trials=2", *WORDS, f"Train.precision={precision}", "--dry-run"]) == 0
        printed.append(capsys.readouterr())
    assert printed[0].out == printed[1].out
    assert printed[0].err.startswith("kdbench: precision: float32, because")
    assert printed[1].err == ""
