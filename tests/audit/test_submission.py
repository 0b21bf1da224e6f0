"""`kdbench submit`: what a pull request needs, and what it must not hold."""

import hashlib
import json
import zipfile

import pytest

from kdbench.audit import submission
from kdbench.cli.main import main


@pytest.fixture
def runs(result, tmp_path, monkeypatch):
    """Writes results as run folders with the files of finished runs; returns the folder of all runs."""
    monkeypatch.chdir(tmp_path)

    def put(*changes):
        for seed, change in enumerate(changes):
            method = change.get("method", "ce")
            run = f"{method}-digits-cnn-s{seed}-0123456789"
            base = {"run": run, "protocol": "1f9c20ab", "weights__sha256": "a" * 64, "provenance__kdbench": "0.1.0"}
            one = result(seed=seed, **{**base, **change})
            folder = tmp_path / "runs" / one["run"]
            (folder / "plugin").mkdir(parents=True)
            (folder / "result.json").write_text(json.dumps(one))
            (folder / "config.gin").write_text("# kdbench run\nTrain.epochs = 1\n")
            (folder / "epochs.csv").write_text("epoch,loss\n1,2.0\n")
        return tmp_path / "runs"

    return put


def test_it_is_an_archive_that_can_be_merged_and_checked(runs, tmp_path, capsys):
    folder = runs({}, {"control": '{"Control.teacher": "untrained"}'}, {"method": "kd", "accuracy": 60.0})
    (next(folder.glob("kd-*")) / "plugin" / "mine.py").write_text("raise SystemExit('executed')")
    assert main(["submit", "all"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/submission.zip: 3 runs",
        f"{tmp_path}/submission.md: the text of the pull request",
    ]
    with zipfile.ZipFile("submission.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    kd = "runs/kd-digits-cnn-s2-0123456789"
    assert {f"{kd}/{name}" for name in ("config.gin", "epochs.csv", "result.json", "plugin/mine.py")} <= files.keys()
    for line in files["SHA256SUMS"].decode().splitlines():
        sum_, _, name = line.partition("  ")
        assert hashlib.sha256(files[name]).hexdigest() == sum_
    text = (tmp_path / "submission.md").read_text()
    assert text.startswith(files["PULL_REQUEST.md"].decode())
    assert "`kdbench run methods=ce`" in text
    assert 'is a control: {"Control.teacher": "untrained"}' in text
    assert hashlib.sha256((tmp_path / "submission.zip").read_bytes()).hexdigest() in text
    assert main(["leaderboard", "--runs", "none", "--merge", "submission.zip"]) == 0
    assert "submission.zip: 3 rows merged, 0 already here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "failed", "error": "boom"}, "has failed (boom); repeat it, or select other runs"),
        ({"provenance__clean": False}, "was done with uncommitted changes in the code"),
        ({"selected_on_test": True}, "used the test set to select (Selection.on_test)"),
        ({"weights__sha256": None}, "does not record its weights.sha256"),
        ({"teacher__run": "ce-digits-cnn-s9-0123456789"}, "the run 'ce-digits-cnn-s9-0123456789', which taught one of these"),
        ({"teacher__run": "../../etc"}, "the run '../../etc', which taught one of these, is not in"),
    ],
)  # fmt: skip
def test_what_others_could_not_check_is_refused(runs, tmp_path, capsys, changes, words):
    runs({}, changes, changes)
    assert main(["submit", "all"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert words in error[0]
    assert not (tmp_path / "submission.zip").exists()
    assert main(["submit", "ce-digits-cnn-s0"]) == 0, "the others can be submitted"


def test_teachers_come_along(runs):
    folder = runs({}, {"method": "kd", "teacher": "cnn", "teacher__run": "ce-digits-cnn-s0-0123456789"})
    ready = submission.prepare(folder, ["kd-digits-cnn-s1-0123456789"])
    assert ready.runs == ("ce-digits-cnn-s0-0123456789", "kd-digits-cnn-s1-0123456789")


def test_missing_files_links_and_wrong_words_are_one_sentence(runs, tmp_path, capsys):
    folder = runs({}, {})
    (next(folder.glob("*-s0-*")) / "epochs.csv").unlink()
    link = next(folder.glob("*-s1-*")) / "config.gin"
    link.unlink()
    link.symlink_to("/etc/hostname")
    for words, sentence in {
        ("ce-digits-cnn-s0",): "the epochs.csv of the run 'ce-digits-cnn-s0-0123456789' cannot be read: no such file",
        ("ce-digits-cnn-s1",): "config.gin is a link that leads out of the run's folder",
        (): "specify which runs to submit",
        ("all", "--to", "a.tar"): "--to must be a file name that ends in .zip",
        ("method=ce",): "did you mean 'methods'?",
        ("methods=kd",): "no run in",
    }.items():
        assert main(["submit", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert sentence in line
