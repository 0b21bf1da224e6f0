"""Rows of somebody else that are trained again here: confirmed, contradicted, or neither."""

import csv
import io
import shutil
import zipfile

import pytest

from kdbench.audit.confirmation import verdict
from kdbench.audit.reproduce import compare
from kdbench.cli.main import main
from kdbench.report.foreign.merging import TOLERANCE
from kdbench.report.leaderboard import check

pytestmark = pytest.mark.usefixtures("own_plugins")

THERE = {
    "status": "finished", "accuracy.last": 50.0, "weights.sha256": "a" * 64, "data.sha256": "d" * 64,
    "provenance.device": "a CPU", "provenance.cpu": "a CPU", "provenance.torch": "2.6.0",
}  # fmt: skip
OTHER = {"weights.sha256": "b" * 64}
NEWER = {"provenance.torch": "2.7.0"}
GPU = {"provenance.device": "a GPU", "provenance.runs_per_gpu": 1, "provenance.deterministic": False}


@pytest.mark.parametrize(
    ("there", "here", "judged"),
    [
        ({}, {}, "confirmed"),
        ({}, NEWER, "confirmed"),
        ({"accuracy.last": 50.1}, {}, "contradicted"),  # the same weights
        ({}, OTHER, "contradicted"),  # nothing else differs
        ({}, OTHER | NEWER, "confirmed"),
        ({}, OTHER | NEWER | {"accuracy.last": 50.0 - TOLERANCE}, "confirmed"),
        ({}, OTHER | NEWER | {"accuracy.last": 50.1 + TOLERANCE}, "contradicted"),
        (GPU, GPU | OTHER, "confirmed"),  # its kernels need not give the same bits twice
        (GPU | {"provenance.deterministic": True}, GPU | OTHER | {"provenance.deterministic": True}, "contradicted"),
        ({"weights.sha256": None}, {}, "confirmed"),
        ({}, OTHER | {"data.sha256": "e" * 64}, None),
        ({"accuracy.last": None}, OTHER, None),
        ({}, {"status": "failed", "error": "boom", "accuracy.last": None, "weights.sha256": None}, None),
    ],
)
def test_the_verdict(there, here, judged):
    stored = {key: str(value) for key, value in (THERE | there).items() if value is not None}
    assert verdict(compare(stored, THERE | here), stored) == judged


def rows(board):
    return {row["run"]: row for row in csv.DictReader(io.StringIO((board / "results.csv").read_text()))}


def test_a_merged_row_is_confirmed_or_contradicted_on_this_machine(finished, tmp_path, monkeypatch, capsys):
    """An archive of `kdbench export`, and a file in which somebody has made an accuracy 20 points better."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "theirs")
    (student,) = (row for row in rows(finished / "leaderboard").values() if row["method"] == "kd")
    assert main(["export", "--runs", "theirs/runs", "--out", "theirs/leaderboard", "--to", "theirs.zip"]) == 0
    assert main(["leaderboard", "--merge", "theirs.zip"]) == 0
    assert "theirs.zip: 2 rows merged, 0 already here" in capsys.readouterr().out
    assert "kd ○" in (tmp_path / "leaderboard/README.md").read_text()
    assert main(["leaderboard"]) == 0
    assert rows(tmp_path / "leaderboard")[student["run"]]["origin"].startswith("theirs.zip ")

    with zipfile.ZipFile("theirs.zip") as archive:  # with the configurations, the runs measure as little as theirs
        archive.extractall(".", [name for name in archive.namelist() if name.startswith("runs/")])
    assert main(["reproduce", "kd-digits"]) == 0
    assert "Confirmed: the row from theirs.zip" in capsys.readouterr().out
    row = rows(tmp_path / "leaderboard")[student["run"]]
    assert (row["reproduced.status"], row["reproduced.identical"]) == ("confirmed", "True")
    assert "kd ●" in (tmp_path / "leaderboard/README.md").read_text()
    assert check(tmp_path / "leaderboard") == []

    better = f"{float(student['accuracy.last']) + 20}"
    text = (finished / "leaderboard/results.csv").read_text()
    (tmp_path / "better.csv").write_text(text.replace(f",{student['accuracy.last']},", f",{better},", 1))
    before = {path: path.read_bytes() for path in (tmp_path / "leaderboard").iterdir()}
    assert main(["leaderboard", "--merge", "better.csv"]) == 2
    named = f"the run '{student['run']}' has accuracy.last {student['accuracy.last']} here and {better} in"
    assert named in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "leaderboard").iterdir()} == before, "nothing was merged"

    assert main(["leaderboard", "--merge", "better.csv", "--out", "other"]) == 0
    assert main(["reproduce", "kd-digits", "--board", "other"]) == 1
    assert "Contradicted: the row from" in capsys.readouterr().out
    page = (tmp_path / "other/README.md").read_text()
    assert "kd ×" in page
    assert "0, 1 contradicted" in page
    assert check(tmp_path / "other") == []


def test_a_run_of_this_machine_is_not_judged(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "leaderboard/results.csv").read_bytes()
    assert main(["reproduce", "ce-digits"]) == 0
    assert "onfirmed" not in capsys.readouterr().out
    assert (tmp_path / "leaderboard/results.csv").read_bytes() == before
