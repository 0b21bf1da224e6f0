"""`kdbench export`: one archive, the same bytes from the same leaderboard."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import zipfile

import pytest

from kdbench import __version__
from kdbench.audit import export
from kdbench.cli.main import main
from kdbench.report import leaderboard
from kdbench.store import provenance


def result(method, seed, **changes):
    return {
        **{"run": f"{method}-digits-{seed}", "status": "finished", "method": method, "method.parameters": "{}"},
        **{"dataset": "digits", "student": "net", "teacher": None, "recipe": "short", "overrides": "{}", "seed": seed},
        **{"protocol": "1f9c20", "accuracy.last": 60.0 + seed, "images_seen": 100},
        **{"seconds.train": 9.5, "provenance.device": "cpu"},
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
    (made / "leaderboard" / "plots" / "mine.png").write_bytes(b"\x89PNG")
    (made / "leaderboard" / ".hidden").write_text("mine")
    (made / "leaderboard" / "results.damaged-12345678.csv").write_text("of other rows")
    assert main(["export"]) == 0
    assert capsys.readouterr().out.strip() == str(made / "leaderboard.zip")
    files = unpacked(made / "leaderboard.zip")
    assert list(files) == [
        "MANIFEST.json",
        "README.txt",
        "environment/packages.txt",
        "environment/runs.json",
        "leaderboard/README.md",
        "leaderboard/plots/a.svg",
        "leaderboard/plots/mine.png",
        "leaderboard/published.csv",
        "leaderboard/results.csv",
        "leaderboard/tables.csv",
        "leaderboard/tables.tex",
        "runs/ce-digits-0/config.gin",
        "runs/ce-digits-1/config.gin",
        "runs/kd-digits-2/command.txt",
        "SHA256SUMS",
    ]
    assert files["leaderboard/results.csv"] == (made / "leaderboard" / "results.csv").read_bytes()
    assert files["runs/kd-digits-2/command.txt"] == b"kdbench run methods=kd seeds=2\n"
    assert json.loads(files["environment/runs.json"])["torch"] == {"2.6.0": 3}
    assert json.loads(files["environment/runs.json"])["gpus"] == {"unknown": 3}
    assert b"\npandas==" in files["environment/packages.txt"]


def test_the_manifest_says_what_packed_it_and_has_the_newest_rows_date(made):
    manifest = json.loads(unpacked(export.export(made / "runs", made / "leaderboard", None))["MANIFEST.json"])
    assert (manifest["newest"], manifest["runs"]) == ("2025-01-03T00:00:00+00:00", 3)
    assert (manifest["kdbench"], manifest["commit"], manifest["clean"]) == (__version__, *provenance.of_this_code())


def test_all_other_files_are_in_the_list_that_sha256sum_checks(made):
    (made / "leaderboard" / "a b").write_text("x")
    (made / "leaderboard" / "back\\slash").write_text("x")
    (made / "leaderboard" / "new\nline").write_text("x")
    files = unpacked(export.export(made / "runs", made / "leaderboard", None))
    sums = files.pop("SHA256SUMS").decode()
    expected = [f"{hashlib.sha256(content).hexdigest()}  {name}" for name, content in files.items()]
    assert set(expected) - set(sums.splitlines()) == {line for line in expected if "\\" in line or "\n" in line}
    assert len(sums.splitlines()) == len(files)
    if not shutil.which("sha256sum"):
        pytest.skip("needs sha256sum")
    for name, content in {**files, "SHA256SUMS": sums.encode()}.items():
        path = made / "unpacked" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def checked():
        words = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
        return subprocess.run(words, cwd=made / "unpacked", capture_output=True, text=True)

    assert (checked().returncode, checked().stdout, checked().stderr) == (0, "", "")
    (made / "unpacked" / "leaderboard" / "new\nline").write_text("y")
    assert checked().returncode == 1


def test_its_readme_tells_what_is_in_it_and_how_to_check_it(made, monkeypatch, capsys):
    to = export.export(made / "runs", made / "leaderboard", None)
    text = unpacked(to)["README.txt"].decode()
    assert all(part in text for part in ("leaderboard/results.csv ", "runs/*/config.gin ", "runs/*/command.txt "))
    assert "index.html" not in text, "which is not there"
    assert "    kdbench reproduce ce-digits-0 --runs runs\n" in text
    assert max(map(len, text.splitlines())) <= 110
    shutil.unpack_archive(to, made / "unpacked")
    monkeypatch.chdir(made / "unpacked")
    for command in re.findall("^    kdbench (leaderboard .*)$", text, re.MULTILINE):
        assert main(shlex.split(command)) == 0
    rows = made / "unpacked" / "leaderboard" / "results.csv"
    rows.write_text(rows.read_text().replace("61.0", "71.0"))
    assert main(["leaderboard", "--check"]) == 1


PAGE, PICTURES = "index.html", [f"plots/digits-net-1f9c20/cost.{kind}" for kind in ("png", "svg")]


@pytest.fixture
def drawn(made):
    """Its page and its pictures too."""
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    assert main(["leaderboard", "columns=accuracy,nll", "--html", "--plots"]) == 0
    assert all((made / "leaderboard" / name).is_file() for name in (PAGE, *PICTURES))
    return made


def test_a_page_and_pictures_of_these_rows_are_packed_and_of_others_refused(drawn, capsys):
    board = drawn / "leaderboard"
    assert main(["export"]) == 0
    files = unpacked(drawn / "leaderboard.zip")
    assert all(files[f"leaderboard/{name}"] == (board / name).read_bytes() for name in (PAGE, *PICTURES))
    assert "leaderboard/index.html " in files["README.txt"].decode()
    (drawn / "leaderboard.zip").unlink()

    changed = drawn / "runs" / "ce-digits-1" / "result.json"
    changed.write_text(changed.read_text().replace("61.0", "71.0"))
    assert main(["leaderboard", "columns=accuracy,nll"]) == 0
    capsys.readouterr()
    assert main(["export"]) == 2
    error = capsys.readouterr().err
    assert f"{board / PAGE} and 2 more are out of date with respect to results.csv" in error
    (command,) = re.findall("fix it with: kdbench (.*)", error)
    assert not (drawn / "leaderboard.zip").exists()

    (board / PAGE).unlink()
    (board / PICTURES[0]).unlink()
    assert main(["export"]) == 2
    assert f"{board / PICTURES[1]} is out of date" in capsys.readouterr().err

    assert main(shlex.split(command)) == 0
    assert main(["export"]) == 0
    assert "columns=accuracy,nll" in (board / "README.md").read_text(), "fixing it keeps what the tables show"
    assert b"71.0" in unpacked(drawn / "leaderboard.zip")["leaderboard/results.csv"]


def test_a_picture_that_does_not_say_what_it_is_of_is_refused(drawn, capsys):
    path = drawn / "leaderboard" / PICTURES[1]
    path.write_text(re.sub("SHA-256 of results.csv: [0-9a-f]{64}", "", path.read_text()))
    assert main(["export"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


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
    assert "does not follow from the rows in results.csv" in error
    assert f"fix it with: kdbench leaderboard --runs {made / 'runs'} --out {made / 'leaderboard'}" in error
    assert not (made / "leaderboard.zip").exists()
    assert main(["leaderboard"]) == 0
    assert main(["export"]) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--to", "x.tar"], "ends in .zip"),
        (["--out", "nowhere"], "does not exist"),
        (["--out", "empty"], "there are no runs in"),
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


@pytest.mark.parametrize(
    "place", ["runs/ce-digits-0/config.gin", "runs/ce-digits-0/plugin/methods/x.py", "leaderboard/notes.txt"]
)
def test_what_a_link_leads_to_is_not_packed(made, capsys, place):
    (made / "secret").write_text("mine")
    path = made / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(made / "secret")
    assert main(["export", "--to", "archive.zip"]) == 2
    assert f"{place.rpartition('/')[2]} leads out of" in capsys.readouterr().err
    assert not (made / "archive.zip").exists()


def test_a_link_inside_the_folder_is_packed_as_a_file(made):
    (made / "leaderboard" / "notes.txt").write_text("ours")
    (made / "leaderboard" / "more.txt").symlink_to("notes.txt")
    assert main(["export", "--to", "archive.zip"]) == 0
    with zipfile.ZipFile("archive.zip") as archive:
        assert archive.read("leaderboard/more.txt") == b"ours"


def test_every_member_lies_in_the_archive(made):
    """A row whose run is a path is not a record, so that none becomes a member."""
    path = made / "leaderboard" / "results.csv"
    path.write_text(path.read_text().replace("ce-digits-0", "../ce-digits-0"))
    leaderboard.regenerate(made / "none", made / "leaderboard")
    export.export(made / "runs", made / "leaderboard", made / "archive.zip")
    with zipfile.ZipFile("archive.zip") as archive:
        assert not [name for name in archive.namelist() if ".." in name.split("/")]
