"""The command line as a user meets it: in a process of its own where time or imports matter."""

import json
import os
import subprocess
import sys
import time

import pytest

from kdbench.cli.main import main
from kdbench.plan import expand, request
from kdbench.store.folder import RunFolder

SHORT = ["Train.epochs=2", "Train.warmup=0", "Measures.corruptions=False", "Measures.images=10"]


def kdbench(*words, cwd, **env):
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "kdbench", *words],
        cwd=cwd, capture_output=True, text=True, env={**os.environ, "KDBENCH_DATA": "", **env},
    )  # fmt: skip
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    errors = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    return done.returncode, done.stdout, errors, imported, time.perf_counter() - began


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["metods=corsd"], "did you mean 'methods'?"),
        (["methods=cosrd"], "did you mean 'corsd'?"),
        (["dataset=cifar1000"], "did you mean 'cifar100'?"),
        (["CORSD.margn=2"], "did you mean 'margin'?"),
        (["bach_size=128"], "did you mean 'Train.batch_size'?"),
        (["Train.epochs=ten"], "Train.epochs takes a number such as 0.5, not 'ten'"),
        (["dataset=cifar100"], "--data DIR or the environment variable KDBENCH_DATA"),
        (["--dri-run"], "did you mean '--dry-run'?"),
        (["Machine.device=mps"], "Machine.device=mps needs an Apple GPU, which this machine does not have"),
    ],
)
def test_wrong_input_is_answered_in_one_sentence_without_torch(tmp_path, words, sentence):
    status, out, errors, imported, _ = kdbench("run", *words, cwd=tmp_path)
    assert status == 2
    assert out == ""
    (line,) = errors
    assert line.startswith("kdbench: ")
    assert sentence in line
    assert not imported & {"torch", "numpy", "pandas", "scipy"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        *(["--help"], ["run", "--help"], ["list"], ["show"], ["run", "--dry-run"], ["--version"], ["rnu"]),
        *(["diff", "kd", "rkd"], ["diff", "--help"], ["power", "--help"]),
        *(["status", "--help"], ["logs", "--help"], ["cancel", "--help"]),
    ],
)
def test_what_needs_no_torch_does_not_import_it(tmp_path, words):
    status, _, _, imported, _ = kdbench(*words, cwd=tmp_path)
    assert status == (2 if words == ["rnu"] else 0)
    assert "kdbench.cli" in imported
    reads_images = words == ["run", "--dry-run"]  # whose number decides whether a step fits into the budget
    assert not imported & ({"torch", "pandas", "scipy"} | (set() if reads_images else {"numpy"}))


def test_watching_runs_imports_no_torch(tmp_path):
    for spec in expand.plan(request.parse(["methods=ce,kd", "dataset=digits"])):
        RunFolder(tmp_path / "runs", spec.id).enqueue(spec.plain())
    for words in (["status"], ["status", "--json"], ["logs", "kd-"], ["cancel", "all"], ["status", "--watch"]):
        status, out, _, imported, _ = kdbench(*words, cwd=tmp_path)
        assert status == 0
        assert out
        assert not imported & {"torch", "numpy", "pandas", "scipy"}


def test_the_folder_gin_of_the_repository_does_not_hide_the_package_gin():
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    status, out, _, _, _ = kdbench("list", "recipes", cwd=root)
    assert status == 0
    assert "smoke" in out


def test_a_run_ends_in_a_table_and_the_same_command_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["run", "methods=ce,byot", "dataset=digits", "seeds=0,1", *SHORT]
    assert main(words) == 0
    first = capsys.readouterr()
    assert "digits · resnet8 · recipe quick (Train.epochs=2, Train.warmup=0)" in first.out
    assert "[4/4]" in first.err
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/*")}

    status, out, errors, imported, _ = kdbench(*words, cwd=tmp_path, COLUMNS="80")
    assert status == 0
    assert errors == ["all 4 runs are already finished; nothing was trained"]
    assert out == first.out
    assert "torch" not in imported
    assert stamps == {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/*")}


def test_dry_run_prints_ids_states_and_teachers_and_makes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["run", "methods=ce,kd", "teacher=resnet14", *SHORT]
    assert main([*words, "--dry-run"]) == 0
    out = capsys.readouterr().out
    teacher = next(line.split()[0] for line in out.splitlines() if "is a teacher" in line)
    assert next(line for line in out.splitlines() if line.startswith("kd-")).split()[-1] == teacher
    assert out.rstrip().endswith("3 runs: 0 finished, 3 to do")
    assert list(tmp_path.iterdir()) == []

    assert main(["run", "methods=ce", "student=resnet14", *SHORT]) == 0
    capsys.readouterr()
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("3 runs: 1 finished, 2 to do")


def test_a_failed_run_is_exit_status_1_shown_in_the_table_and_tried_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    words = ["run", "methods=ce,corsd", "CORSD.kl=raw", *SHORT]
    for _ in range(2):
        assert main(words) == 1
        shown = capsys.readouterr()
        assert "failed: corsd (kl=raw), seed 0" in shown.out
        assert "the loss is not finite" in shown.out
        assert "failed: the loss is not finite" in shown.err
    assert "[1/1]" in shown.err


def test_rerun_does_finished_runs_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["run", "methods=ce", *SHORT]
    main(words)
    (result,) = tmp_path.glob("runs/*/result.json")
    before = result.stat().st_mtime_ns
    assert main([*words, "--rerun"]) == 0
    assert result.stat().st_mtime_ns > before
    assert "[1/1]" in capsys.readouterr().err


def test_leaderboard_from_the_runs_and_its_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard", "--check"]) == 2
    main(["run", "methods=ce,byot", *SHORT])
    assert main(["leaderboard"]) == 0
    assert "1 table from 2 runs, written" in capsys.readouterr().out
    assert main(["leaderboard", "--check"]) == 0
    readme = tmp_path / "leaderboard" / "README.md"
    readme.write_text(readme.read_text().replace("ce", "cf"))
    assert main(["leaderboard", "--check"]) == 1
    assert "does not follow from the rows" in capsys.readouterr().err


def test_runs_and_data_folders_can_be_named_in_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDBENCH_RUNS", str(tmp_path / "elsewhere"))
    assert main(["run", "methods=ce", *SHORT]) == 0
    assert len(list(tmp_path.glob("elsewhere/*/result.json"))) == 1
    monkeypatch.setenv("KDBENCH_DATA", str(tmp_path / "nowhere"))
    assert main(["run", "methods=ce", "dataset=cifar10"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_show_names_the_place_of_every_value(capsys):
    assert main(["show", "methods=kd", "dataset=digits", "SGD.lr=0.3"]) == 0
    out = capsys.readouterr().out
    origin = {line.split(" = ")[0]: line.split("# ")[1] for line in out.splitlines() if " = " in line}
    assert origin["SGD.lr"] == "command line"
    assert origin["Train.epochs"].startswith("recipe/quick.gin:")
    assert origin["SGD.momentum"].startswith("recipe/standard.gin:")
    assert origin["KD.temperature"].startswith("method/kd.gin:")


def test_runs_made_by_another_version_of_the_method_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["run", "methods=ce", *SHORT]
    main(words)
    (result,) = tmp_path.glob("runs/*/result.json")
    content = json.loads(result.read_text())
    result.write_text(json.dumps({**content, "provenance.method_sha256": "0" * 64}))
    capsys.readouterr()
    assert main(words) == 0
    assert "1 finished run used an older methods/ce.py; use --rerun to repeat it" in capsys.readouterr().err
    assert main([*words, "--rerun"]) == 0
    assert "an older" not in capsys.readouterr().err


@pytest.mark.exhaustive
def test_the_reader_of_the_output_ends_and_the_runs_do_not(tmp_path):
    words = " ".join(["methods=ce", "dataset=digits", "seeds=0,1", *SHORT])
    command = f'"{sys.executable}" -m kdbench run {words} 2>&1 | true; exit ${{PIPESTATUS[0]}}'
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path).returncode == 0
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    assert [result["status"] for result in results] == ["finished"] * 2
