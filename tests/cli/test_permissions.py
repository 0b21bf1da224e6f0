"""Folders that may not be read or written: one sentence with the file and the system's reason, and exit status 2."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from kdbench.cli.main import main
from kdbench.plan import expand, request
from kdbench.store.folder import CHECKPOINT, RunFolder

ROOT = Path(__file__).parents[2]
NOBODY = 65534
(CE,) = expand.plan(request.parse(["methods=ce", "dataset=digits", "seeds=0"]))


@pytest.fixture
def closed(monkeypatch):
    """A folder with `closed`, which may not be written, and `secret`, which may not be read, as a user who is not root."""
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are root's alone
    (folder / "file").touch()
    run = RunFolder(folder / "finished", CE.id)
    run.enqueue(CE.plain())
    run.begin(f"# {CE.command()}\n\n{CE.config}")
    (run / CHECKPOINT).touch()
    run.finish({**CE.identity(), "status": "finished", "accuracy.last": 71.0, "provenance.command": CE.command()})
    for name, mode in (("closed", 0o555), ("secret", 0o000), (".", 0o755)):
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(mode)
    monkeypatch.chdir(folder)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    yield folder
    if root:
        os.seteuid(0)
    monkeypatch.undo()
    (folder / "closed").chmod(0o755)
    (folder / "secret").chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("words", "name", "why"),
    [
        (["run", "methods=ce", "seeds=0", "--runs", "closed/runs"], "closed/runs", "permission denied"),
        (["run", "methods=ce", "seeds=0", "--runs", "secret/runs"], "secret/runs", "permission denied"),
        (["run", "methods=ce", "seeds=0", "--runs", "file"], "file/", "not a directory"),
        (["leaderboard", "--runs", "nothing", "--out", "closed/board"], "closed/board", "permission denied"),
        (["leaderboard", "--runs", "nothing", "--out", "closed"], "closed/results.csv", "permission denied"),
        (["leaderboard", "--runs", "nothing", "--out", "file"], "file", "file exists"),
        (["leaderboard", "--runs", "secret"], "secret", "permission denied"),
        (["leaderboard", "--check", "--out", "secret/board"], "secret/board", "permission denied"),
        (["export", "--out", str(ROOT / "leaderboard"), "--to", "closed/a.zip"], "closed/a.zip", "permission denied"),
        (["export", "--out", str(ROOT / "leaderboard"), "--to", "file/a.zip"], "file", "file exists"),
        (["status", "--runs", "secret"], "secret", "permission denied"),
        (["cancel", "all", "--runs", "secret"], "secret", "permission denied"),
        (["logs", "a", "--runs", "secret"], "secret", "permission denied"),
        (["tune", "kd", "trials=1", "teacher=untrained", "--runs", "secret"], "", ""),
        (
            ["tune", "ce", "trials=1", "Split.validation=0.2", "--runs", "closed/runs"],
            "closed/runs",
            "permission denied",
        ),
        (["reproduce", f"finished/{CE.id}", "--out", "closed/again"], "closed/again", "permission denied"),
        (["reproduce", "secret/a"], "secret", "permission denied"),
        (["diff", "secret/a", "secret/b"], "secret", "permission denied"),
        (["list", "methods", "--plugins", "x" * 5000], "xxx…xxx", "file name too long"),
        (["status", "--runs", "x" * 5000], "xxx…xxx", "file name too long"),
        (["leaderboard", "--out", "x" * 300], "xxx", "file name too long"),
        (["list", "methods", "--plugins", "secret/mine"], "secret/mine", "permission denied"),
    ],
)
def test_one_sentence_names_the_file_and_the_reason(closed, capsys, words, name, why):
    assert main(words) == 2
    out, err = capsys.readouterr()
    (sentence,) = [line for line in err.splitlines() if line.startswith("kdbench: ")]
    assert name in sentence
    assert sentence.endswith(why) or why in sentence
    assert len(sentence) < 600
    assert "Traceback" not in out + err


def test_a_run_whose_folder_is_closed_is_unreadable_and_the_others_are_shown(closed, capsys):
    if os.getuid() == 0:
        os.seteuid(0)
    other = closed / "finished" / "other-run"
    other.mkdir()
    other.chmod(0o000)
    if os.getuid() == 0:
        os.seteuid(NOBODY)
    assert main(["status", "--all", "--runs", "finished"]) == 0
    out = capsys.readouterr().out
    assert "2 runs: 1 unreadable, 1 done" in out
    assert "permission denied" in out
    if os.getuid() == 0:
        os.seteuid(0)
    other.chmod(0o755)


def test_debug_shows_the_traceback(closed, capsys):
    assert main(["status", "--runs", "secret", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("kdbench: ")


def test_what_is_nested_too_deeply_is_a_sentence(closed, capsys):
    deep = "(" * 5000 + "1" + ")" * 5000
    assert main(["run", "methods=kd", f"KD.temperature={deep}", "--dry-run"]) in (1, 2)
    assert capsys.readouterr().err.startswith("kdbench: ")
