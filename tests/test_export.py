"""`kdbench export`: one archive, the same bytes from the same leaderboard."""

import hashlib
import json
import os
import shutil
import zipfile

import pytest

from kdbench import export
from kdbench.cli import main
from kdbench.report import leaderboard


def result(method, seed, **changes):
    return {
        **{"run": f"{method}-digits-{seed}", "status": "finished", "method": method, "method.parameters": "{}"},
        **{"dataset": "digits", "student": "net", "teacher": None, "recipe": "short", "overrides": "{}", "seed": seed},
        **{"protocol": "1f9c20", "accuracy.last": 60.0 + seed, "images_seen": 100},
        **{"provenance.torch": "2.6.0", "provenance.command": f"kdbench run methods={method} seeds={seed}"},
        **{"provenance.finished_at": f"2025-01-0{seed + 1}T00:00:00+00:00"},
        **changes,
    }


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Three runs and their leaderboard; the folder of one run is gone."""
    monkeypatch.chdir(tmp_path)
    for one in (result("ce", 0), result("ce", 1), result("kd", 2, provenance__x=1)):
        folder = tmp_path / "runs" / one["run"]
        folder.mkdir(parents=True)
        (folder / "config.gin").write_text(f"# {one['provenance.command']}\n")
        (folder / "result.json").write_text(json.dumps(one))
    leaderboard.regenerate(tmp_path / "runs", tmp_path / "leaderboard")
    shutil.rmtree(tmp_path / "runs" / "kd-digits-2")
    return tmp_path


def unpacked(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_it_holds_rows_tables_configurations_and_environment(made, capsys):
    (made / "leaderboard" / "published.csv").write_text("source,dataset,teacher,student,method,top1,note\n")
    leaderboard.regenerate(made / "runs", made / "leaderboard")
    (made / "leaderboard" / "plots").mkdir()
    (made / "leaderboard" / "plots" / "a.svg").write_text("<svg/>")
    (made / "leaderboard" / ".hidden").write_text("mine")
    assert main(["export"]) == 0
    assert capsys.readouterr().out.strip() == str(made / "leaderboard.zip")
    files = unpacked(made / "leaderboard.zip")
    assert list(files) == [
        "MANIFEST.json",
        "environment/packages.txt",
        "environment/runs.json",
        "leaderboard/README.md",
        "leaderboard/plots/a.svg",
        "leaderboard/published.csv",
        "leaderboard/results.csv",
        "leaderboard/tables.csv",
        "leaderboard/tables.tex",
        "runs/ce-digits-0/config.gin",
        "runs/ce-digits-1/config.gin",
        "runs/kd-digits-2/command.txt",
    ]
    assert files["leaderboard/results.csv"] == (made / "leaderboard" / "results.csv").read_bytes()
    assert files["runs/kd-digits-2/command.txt"] == b"kdbench run methods=kd seeds=2\n"
    assert json.loads(files["environment/runs.json"])["torch"] == {"2.6.0": 3}
    assert json.loads(files["environment/runs.json"])["gpus"] == {"unknown": 3}
    assert b"\npandas==" in files["environment/packages.txt"]


def test_the_manifest_has_the_checksum_of_each_file_and_the_newest_rows_date(made):
    files = unpacked(export.export(made / "runs", made / "leaderboard", None))
    manifest = json.loads(files.pop("MANIFEST.json"))
    assert manifest["sha256"] == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert (manifest["newest"], manifest["runs"]) == ("2025-01-03T00:00:00+00:00", 3)


def test_the_same_bytes_from_the_same_board(made):
    first = export.export(made / "runs", made / "leaderboard", made / "a.zip").read_bytes()
    for path in made.rglob("*"):
        os.utime(path, (1, 1))
    assert export.export(made / "runs", made / "leaderboard", made / "b.zip").read_bytes() == first
    inside = made / "leaderboard" / "supplement.zip"
    for _ in range(2):
        assert export.export(made / "runs", made / "leaderboard", inside).read_bytes() == first, (
            "it does not pack itself"
        )
    shutil.copytree(made, made.parent / "moved")
    os.unlink(made.parent / "moved" / "leaderboard" / "supplement.zip")
    moved = made.parent / "moved"
    assert export.export(moved / "runs", moved / "leaderboard", None).read_bytes() == first


@pytest.mark.parametrize("file", ["README.md", "results.csv"])
def test_a_board_that_is_not_what_its_rows_give_is_refused(made, capsys, file):
    path = made / "leaderboard" / file
    path.write_text(path.read_text().replace("61.0", "71.0").replace("Leaderboard", "Leader board"))
    assert main(["export"]) == 2
    error = capsys.readouterr().err
    assert "is not what the rows in results.csv give" in error
    assert f"mend it with: kdbench leaderboard --runs {made / 'runs'} --out {made / 'leaderboard'}" in error
    assert not (made / "leaderboard.zip").exists()
    assert main(["leaderboard"]) == 0
    assert main(["export"]) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--to", "x.tar"], "ends in .zip"),
        (["--out", "nowhere"], "there is no"),
        (["--out", "empty"], "there is no run in"),
        (["--ot", "x"], "did you mean '--out'?"),
    ],
)
def test_wrong_input_is_one_sentence(made, capsys, words, sentence):
    leaderboard.regenerate(made / "none", made / "empty")
    assert main(["export", *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert not list(made.glob("*.zip"))
