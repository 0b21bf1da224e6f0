"""What `kdbench leaderboard` prints, and its exit status."""

import json
import shutil

import pytest

from kdbench.cli.main import main


@pytest.fixture
def made(result, store, tmp_path, monkeypatch):
    """Runs and their leaderboard, as the current folder."""
    store(*(result("ce", seed, 50.0 + seed) for seed in (0, 1)))
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard"]) == 0
    return tmp_path


def test_it_says_what_it_has_written(made, capsys):
    (made / "runs" / "open").mkdir()
    (made / "runs" / "open" / "config.gin").write_text("")
    capsys.readouterr()
    assert main(["leaderboard"]) == 0
    shown = capsys.readouterr()
    readme = made / "leaderboard" / "README.md"
    assert shown.out == f"{readme}: 1 table from 2 runs, unchanged; 1 run has no result yet\n"


def test_check_fails_and_names_the_file_that_is_out_of_date(made, capsys):
    capsys.readouterr()
    assert main(["leaderboard", "--check"]) == 0
    assert capsys.readouterr() == ("", "")
    readme = made / "leaderboard" / "README.md"
    readme.write_text(readme.read_text() + "by hand\n")
    assert main(["leaderboard", "--check"]) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith(f"kdbench: {readme} does not follow from")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--check", "--html"], "--check cannot be combined with --html, --plots or --merge"),
        (["--check", "--plots"], "--check cannot be combined with --html, --plots or --merge"),
        (["--check", "--merge", "x"], "--check cannot be combined with --html, --plots or --merge"),
        (["--merge", "none.zip"], "none.zip: no such file or directory"),
        (["--merge", "runs"], "--merge must be a results.csv or an archive of kdbench export, not the folder"),
        (["colums=ece"], "did you mean 'columns'?"),
        (["columns=ecee"], "did you mean 'ece'?"),
    ],
)
def test_wrong_input_is_one_sentence(made, capsys, words, sentence):
    capsys.readouterr()
    assert main(["leaderboard", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def foreign(folder, result, **changes):
    """The results.csv of somebody else, in a folder of theirs."""
    run = {"run": "kd-digits-cnn-s0-0123456789", "protocol": "1f9c20ab"}
    (folder / "theirs" / "runs" / run["run"]).mkdir(parents=True)
    (folder / "theirs" / "runs" / run["run"] / "result.json").write_text(
        json.dumps(result("kd", 0, 60.0, **run, **changes))
    )
    assert main(["leaderboard", "--runs", "theirs/runs", "--out", "theirs/leaderboard"]) == 0


def test_merged_rows_stay_and_are_never_taken_for_those_of_this_machine(made, result, capsys):
    foreign(made, result, origin="", reproduced__status="confirmed")
    capsys.readouterr()
    assert main(["leaderboard", "--merge", "theirs/leaderboard/results.csv"]) == 0
    readme = made / "leaderboard" / "README.md"
    assert capsys.readouterr().out.splitlines() == [
        "leaderboard/results.csv: 1 row merged, 0 already here",
        f"{readme}: 2 tables from 3 runs, written",
    ]
    rows = (made / "leaderboard" / "results.csv").read_bytes()
    assert main(["leaderboard"]) == 0
    assert (made / "leaderboard" / "results.csv").read_bytes() == rows
    assert "kd ○" in readme.read_text()
    assert "○ done elsewhere" in (made / "leaderboard" / "tables.csv").read_text()
    assert main(["leaderboard", "--merge", "theirs/leaderboard/results.csv", "--html"]) == 0
    assert "kd ○" in (made / "leaderboard" / "index.html").read_text()
    assert main(["leaderboard", "--check"]) == 0
    assert main(["leaderboard", "--check", "--merge", "theirs/leaderboard/results.csv"]) == 2


def test_an_archive_of_a_stranger_executes_and_unpacks_nothing(made, result, touched):
    foreign(made, result)
    run = made / "theirs" / "runs" / "kd-digits-cnn-s0-0123456789"
    (run / "config.gin").write_text("import evil\n")
    (run / "plugin" / "methods").mkdir(parents=True)
    (run / "plugin" / "methods" / "evil.py").write_text("raise SystemExit('executed')")
    assert main(["export", "--runs", "theirs/runs", "--out", "theirs/leaderboard", "--to", "theirs.zip"]) == 0
    shutil.rmtree(made / "theirs")
    merge = ["leaderboard", "--merge", "theirs.zip"]
    assert main([*merge, "--out", "first"]) == 0, "and imports what merging needs"
    before = set(made.rglob("*"))
    status, events = touched(main, merge)
    assert status == 0
    assert [event for event in events if not event.startswith("open ") or "evil" in event] == []
    assert set(made.rglob("*")) == before
