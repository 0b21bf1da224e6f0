"""The state of a machine that `kdbench doctor` reports, on the real machine with folders made for each case."""

import os

import pytest

from kdbench.config import places
from kdbench.launch import diagnosis, requirements


def facts(result):
    return dict(result.facts)


def test_a_machine_that_can_run_has_no_problem_and_nothing_is_written(tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = diagnosis.diagnose(tmp_path / "runs", None)
    assert result.problems == []
    assert sorted(tmp_path.rglob("*")) == before
    assert "will be created" in facts(result)["runs"]
    assert facts(result)["datasets"] == "ready: digits"


def test_datasets_are_recognised_by_their_files_without_being_read(tmp_path):
    for name in ("svhn/train_32x32.mat", "FashionMNIST/raw/train-images-idx3-ubyte.gz", "wnids.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("not read")
    result = diagnosis.diagnose(tmp_path / "runs", tmp_path)
    assert facts(result)["datasets"] == "ready: digits, fashion_mnist, svhn, tiny_imagenet"
    assert any("cifar10 (can be downloaded), cifar100" in state for _, state in result.facts)
    assert result.problems == []


def test_a_data_folder_that_is_missing_is_a_problem_with_a_remedy(tmp_path):
    (problem,) = diagnosis.diagnose(tmp_path / "runs", tmp_path / "nowhere").problems
    assert problem.endswith("nowhere is not a folder; name the folder with --data DIR or KDBENCH_DATA")


def test_a_folder_of_runs_below_a_file_is_a_problem(tmp_path):
    (tmp_path / "file").write_text("")
    (problem,) = diagnosis.diagnose(tmp_path / "file" / "runs", None).problems
    assert "not a folder" in problem
    assert "--runs DIR" in problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_runs_without_permission_is_a_problem(tmp_path):
    tmp_path.chmod(0o500)
    try:
        (problem,) = diagnosis.diagnose(tmp_path / "runs", None).problems
    finally:
        tmp_path.chmod(0o700)
    assert "permission denied" in problem


@pytest.mark.parametrize(("mode", "who"), [(0o777, "everybody"), (0o770, "its group"), (0o755, None), (0o700, None)])
def test_who_else_can_write_the_runs_is_noted(tmp_path, mode, who):
    tmp_path.chmod(mode)
    about = [note for note in diagnosis.diagnose(tmp_path, None).notes if "can be written by" in note]
    assert [who in note for note in about] == [True] * (who is not None)


def test_open_pickles_are_noted(tmp_path):
    (tmp_path / ".slurm").mkdir(mode=0o755)
    assert any("chmod 700" in note for note in diagnosis.diagnose(tmp_path, None).notes)


@pytest.mark.parametrize(
    ("script", "state"),
    [("echo long; echo gpu", "reachable; partitions: gpu, long"), ("echo down >&2; exit 1", "not reachable")],
)
def test_slurm_is_asked_for_its_partitions(tmp_path, monkeypatch, script, state):
    for program in ("sinfo", "sbatch"):
        (tmp_path / program).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    result = diagnosis.diagnose(tmp_path / "runs", None)
    assert state in facts(result)["SLURM"]
    assert any("down" in note for note in result.notes) == ("not" in state)
    assert result.problems == []


def test_a_broken_file_of_a_plugin_is_a_problem(tmp_path, own_plugins):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/odd.py").write_text("class")
    places.add_plugins([str(tmp_path)])
    result = diagnosis.diagnose(tmp_path / "runs", None)
    assert any("odd" in problem for problem in result.problems)
    assert facts(result)["plug-ins"] == str(tmp_path)


def test_the_packages_are_those_that_pyproject_declares():
    declared = requirements.by_extra()
    assert "torch" in declared[requirements.NEEDED]
    assert declared["tune"] == ("optuna",)
    assert requirements.missing(("torch", "no-such-package")) == ("no-such-package",)


def test_an_installation_without_a_clone_is_read_from_its_metadata(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "own_root", lambda: tmp_path)
    declared = requirements.by_extra()
    assert "torch" in declared[requirements.NEEDED]
    assert declared["tune"] == ("optuna",)
