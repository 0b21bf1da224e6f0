"""Folders that may not be read or written: one sentence with the file and the system's reason, and exit status 2."""

import ctypes
from pathlib import Path

import pytest

from kdbench.cli.main import main
from kdbench.plan import expand, request
from kdbench.store.folder import CHECKPOINT, RunFolder

ROOT = Path(__file__).parents[2]
(CE,) = expand.plan(request.parse(["methods=ce", "dataset=digits", "seeds=0"]))


class _Capabilities(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def obey_permissions(obey: bool) -> None:
    """Make this process obey the permissions of files as any user's does; root is above them by two capabilities."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (_Capabilities * 2)()
    assert libc.capget(header, sets) == 0
    above = sets[0].permitted & 0b1110  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
    sets[0].effective = sets[0].effective & ~above if obey else sets[0].effective | above
    assert libc.capset(header, sets) == 0


@pytest.fixture
def closed(tmp_path, monkeypatch, own_plugins):
    """The current folder, with `closed`, which may not be written, `secret`, which may not be read, and a finished run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    run = RunFolder(tmp_path / "finished", CE.id)
    run.enqueue(CE.plain())
    run.begin(f"# {CE.command()}\n\n{CE.config}")
    (run / CHECKPOINT).touch()
    run.finish({**CE.identity(), "status": "finished", "accuracy.last": 71.0, "provenance.command": CE.command()})
    (tmp_path / "finished" / "secret").mkdir()
    modes = {"closed": 0o555, "secret": 0o000, "finished/secret": 0o000}
    for name, mode in modes.items():
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name).chmod(mode)
    obey_permissions(True)
    yield tmp_path
    obey_permissions(False)
    for name in modes:
        (tmp_path / name).chmod(0o755)


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
        (
            ["tune", "ce", "trials=1", "Split.validation=0.2", "--runs", "closed/runs"],
            "closed/runs",
            "permission denied",
        ),
        (["reproduce", f"finished/{CE.id}", "--out", "closed/again"], "closed/again", "permission denied"),
        (["reproduce", "secret/a"], "secret", "permission denied"),
        (["diff", "secret/a", "secret/b"], "secret", "permission denied"),
        (["list", "methods", "--plugins", "x" * 5000], "xxx", "it is too long"),
        (["status", "--runs", "x" * 5000], "xxx", "it is too long"),
        (["leaderboard", "--out", "x" * 300], "xxx", "too long"),
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
    assert main(["status", "--all", "--runs", "finished"]) == 0
    out = capsys.readouterr().out
    assert "2 runs: 1 unreadable, 1 done" in out
    assert "secret" in out
    assert "permission denied" in out


def test_debug_shows_the_traceback(closed, capsys):
    assert main(["status", "--runs", "secret", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("kdbench: ")


def test_what_is_nested_too_deeply_is_a_sentence(closed, capsys):
    deep = "(" * 5000 + "1" + ")" * 5000
    assert main(["run", "methods=kd", f"KD.temperature={deep}", "--dry-run"]) in (1, 2)
    assert capsys.readouterr().err.startswith("kdbench: ")
