"""`kdbench run` up to the point where runs start, and `kdbench show`, which takes the same words."""

import re

import pytest

from kdbench.cli.main import main
from kdbench.config import processor
from kdbench.plan import expand, request
from kdbench.store.folder import CHECKPOINT, RunFolder

WORDS = ["methods=ce,kd", "dataset=digits", "seeds=0,1"]
SEVERAL = ["methods=ce,kd", "dataset=digits", "KD.temperature=1,2.5", "Train.epochs=7,8"]


def test_a_dry_run_shows_the_values_that_tell_runs_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *SEVERAL, "--dry-run"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "state", "protocol", "values", "teacher"]
    kd = [line.split("  ") for line in lines if line.startswith("kd-")]
    assert [next(cell for cell in cells if "KD." in cell) for cells in kd] == [
        "KD.temperature=1, Train.epochs=7",
        "KD.temperature=1, Train.epochs=8",
        "KD.temperature=2.5, Train.epochs=7",
        "KD.temperature=2.5, Train.epochs=8",
    ]
    ce = [line for line in lines if line.startswith("ce-digits-resnet8")]
    assert ["Train.epochs=7" in line for line in ce] == [True, False]
    assert lines[-1] == "8 runs: 0 finished, 8 to do"


def test_a_dry_run_refuses_what_this_machine_cannot_do_but_not_for_a_cluster(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = ["run", "methods=ce", "dataset=digits", "Machine.device=cuda", "--dry-run"]
    for more in ([], ["executor=local"], ["workers=2"], ["runs_per_gpu=2"]):
        assert main([*words, *more]) == 2
        assert "Machine.device=cuda needs a GPU, but this machine has none" in capsys.readouterr().err
    assert main([*words, "executor=slurm"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_show_has_a_part_for_each_protocol_and_each_value(capsys):
    assert main(["show", *SEVERAL]) == 0
    out = capsys.readouterr().out
    assert out.count("# dataset=digits recipe=quick: protocol ") == 2
    assert out.count("# methods=ce") == 2
    assert [out.count(f"KD.temperature = {value}  ") for value in (1.0, 2.5)] == [2, 2]


@pytest.fixture
def finished(tmp_path):
    for place, spec in enumerate(expand.plan(request.parse(WORDS))):
        folder = RunFolder(tmp_path, spec.id)
        folder.enqueue(spec.plain())
        folder.begin(spec.config)
        (folder / CHECKPOINT).touch()
        folder.finish({**spec.identity(), "status": "finished", "accuracy.last": 60.0 + place**2})
    return ["--runs", str(tmp_path)]


def test_differences_are_from_the_baseline_that_is_named(finished, capsys):
    assert main(["run", *WORDS, *finished]) == 0
    assert "Δ ce" in capsys.readouterr().out
    assert main(["run", *WORDS, "baseline=kd", *finished]) == 0
    shown = capsys.readouterr().out
    assert "Δ kd" in shown
    assert "Δ ce" not in shown


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("baseline=kdd", "unknown baseline 'kdd'; did you mean 'kd'?"),
        ("baseline=crd", "unknown baseline 'crd'; "),
        ("baseline=", "'baseline=' has no value"),
        ("baseline=ce,kd", "'baseline' takes one value, not 2"),
    ],
)
def test_a_baseline_that_is_not_in_the_plan_is_refused_before_anything_starts(tmp_path, capsys, word, sentence):
    assert main(["run", *WORDS, word, "--runs", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_that_was_found_is_one_of_the_comparison_where_it_is_asked_for(finished, capsys):
    teacher = expand.plan(request.parse(WORDS))[0]
    assert teacher.is_teacher
    assert main(["run", f"methods={teacher.method}", "dataset=digits", f"student={teacher.student}", *finished]) == 0
    shown = capsys.readouterr()
    assert "the run is already finished" in shown.err
    assert f"digits · {teacher.student}" in shown.out


def test_a_plan_reports_the_precision_that_it_chose_and_one_that_is_slow(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(processor, "cpu_flags", lambda: frozenset())
    printed = {}
    for precision in ("auto", "float32", "bfloat16"):
        assert main(["run", *WORDS, f"Train.precision={precision}", "--dry-run"]) == 0
        printed[precision] = capsys.readouterr()
    why = "because this CPU has no bfloat16 instructions (avx512_bf16, amx_bf16)\n"
    assert printed["auto"].err == f"kdbench: precision: float32, {why}"
    assert printed["bfloat16"].err == f"kdbench: Train.precision=bfloat16 is slower than float32 here, {why}"
    assert printed["auto"].out == printed["float32"].out != printed["bfloat16"].out
    assert main(["show", *WORDS, "Train.precision=auto"]) == 0
    assert f"Train.precision = 'float32'  # command line: auto, {why}" in re.sub(" +#", "  #", capsys.readouterr().out)
