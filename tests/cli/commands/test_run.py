"""The table that `kdbench run` prints, of runs that are finished already."""

from __future__ import annotations

import pytest

from kdbench.cli.main import main
from kdbench.plan import expand, request
from kdbench.store.folder import CHECKPOINT, RunFolder

WORDS = ["methods=ce,kd", "dataset=digits", "seeds=0,1"]


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
