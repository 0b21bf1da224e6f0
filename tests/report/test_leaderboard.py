from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdbench.cli.main import main
from kdbench.errors import UserError
from kdbench.files import write_atomically
from kdbench.report.folders import INDEX
from kdbench.report.leaderboard import check, regenerate
from kdbench.report.request import Request

FILES = {"results.csv", "README.md", "tables.csv", "tables.tex"}


@pytest.fixture
def results(result):
    ce = [result("ce", seed, 50.0 + seed) for seed in range(3)]
    kd = [result("kd", seed, 52.0 + seed, taught=True) for seed in range(3)]
    return [*ce, *kd, result("at", 0, None, status="failed", error="boom"), result("ce", run="c", dataset="cifar100")]


@pytest.fixture
def board(results, store, tmp_path):
    """A leaderboard that is as it should be."""
    regenerate(store(*results), tmp_path / "out")
    return tmp_path / "out"


def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_what_is_written_passes_the_check(board):
    assert set(contents(board)) == FILES
    assert check(board) == []


def test_outcome(results, store, tmp_path):
    runs = store(*results)
    (runs / "half").mkdir()
    (runs / "half" / "result.json").write_text("{")
    outcome = regenerate(runs, tmp_path / "out")
    assert (outcome.runs, outcome.read) == (8, 8)
    assert [table.dataset for table in outcome.tables] == ["cifar100", "digits"]
    assert len(outcome.messages) == 1
    assert "half" in outcome.messages[0]
    assert {path.name for path in outcome.changed} == FILES
    assert regenerate(runs, tmp_path / "out").changed == []


def shuffled(rng, monkeypatch):
    """Folders come in another order every time."""
    scandir = os.scandir
    monkeypatch.setattr("os.scandir", lambda path: iter(rng.sample(entries := list(scandir(path)), len(entries))))


def test_only_what_changed_is_read_again(results, store, board, tmp_path):
    runs, before = tmp_path / "runs", contents(board)
    assert regenerate(runs, board).read == 0
    store({**results[0], "accuracy.last": 51.0})
    assert regenerate(runs, board).read == 1
    assert contents(board) != before
    store(results[0])
    assert regenerate(runs, board).read == 1
    assert contents(board) == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda runs, board: (runs / INDEX).unlink(),
        lambda runs, board: (runs / INDEX).write_text((runs / INDEX).read_text()[:-20]),
        lambda runs, board: (board / "results.csv").write_bytes((board / "results.csv").read_bytes() + b"\n"),
    ],
)
def test_without_its_index_or_beside_other_rows_all_is_read(board, tmp_path, spoil):
    before = contents(board)
    spoil(tmp_path / "runs", board)
    assert regenerate(tmp_path / "runs", board).read == 8
    assert contents(board) == before
    assert regenerate(tmp_path / "runs", board).read == 0


def test_a_row_that_somebody_changed_is_put_right_from_its_folder(board, tmp_path):
    before = contents(board)
    (board / "results.csv").write_bytes(before["results.csv"].replace(b"52.0", b"62.0", 1))
    regenerate(tmp_path / "runs", board)
    assert contents(board) == before


def test_another_board_of_the_same_runs_is_whole(board, tmp_path):
    assert regenerate(tmp_path / "runs", tmp_path / "second").read == 8
    assert contents(tmp_path / "second") == contents(board)
    assert regenerate(tmp_path / "runs", board).read == 0, "its rows are the same"


@settings(
    deadline=None,
    max_examples=int(os.environ.get("KDBENCH_FUZZ", 10)),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.randoms(use_true_random=False))
def test_same_bytes_in_any_number_of_steps_whatever_the_order(results, board, tmp_path, rng):
    """Folders come, go, change and fail in any order, with or without the index; in the end they are the same ones."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as place, pytest.MonkeyPatch.context() as patch:
        shuffled(rng, patch)
        runs, out = Path(place) / "runs", Path(place) / "out"
        for one in rng.sample(results, len(results)):
            folder = runs / one["run"]
            folder.mkdir(parents=True)
            if rng.random() < 0.4:
                other = rng.choice(["{", json.dumps({**one, "accuracy.last": 1.0}), json.dumps({**one, "zebra": 1})])
                (folder / "result.json").write_text(other)
                regenerate(runs, out)
            write_atomically(folder / "result.json", json.dumps(one).encode())
            if rng.random() < 0.5:
                regenerate(runs, out)
            if rng.random() < 0.2:
                (runs / INDEX).unlink(missing_ok=True)
        regenerate(runs, out)
        assert contents(out) == contents(board)


def test_folders_that_come_and_go_give_the_same(results, store, board, tmp_path):
    random.Random(1).shuffle(results)
    shutil.rmtree(tmp_path / "runs")
    for one in results:
        regenerate(store(one), tmp_path / "steps")
        shutil.rmtree(tmp_path / "runs")
    assert contents(tmp_path / "steps") == contents(board)


def test_rows_stay_without_their_folders(board, tmp_path):
    before = contents(board)
    outcome = regenerate(tmp_path / "nowhere", board)
    assert (outcome.runs, outcome.read, outcome.changed) == (8, 0, [])
    assert contents(board) == before


def test_readme_has_tables_runs_and_commands(board):
    text = (board / "README.md").read_text()
    assert re.findall(r"^## (.*)", text, re.M) == ["cifar100", "digits", "Published against measured"]
    assert re.findall(r"^### (.*)", text, re.M)[1] == "digits · cnn · recipe short · protocol 1f9c20"
    assert text.count("<details>") == text.count("</details>") == 2
    assert "- **kd, teacher resnet20 (61.3)**: seed 0 `kd0`, seed 1 `kd1`, seed 2 `kd2`" in text
    assert text.count("`kdbench run methods=kd`") == 1
    assert re.search(r"  - configuration `[0-9a-f]{8}`, commit", text)
    assert "failed: at, seed 0, run at0: boom" in text
    assert "95 % t interval" in text


def test_an_edited_readme_fails(board):
    path = board / "README.md"
    path.write_text(path.read_text().replace("53.00", "55.00"))
    (wrong,) = check(board)
    assert "README.md" in wrong


@pytest.mark.parametrize("name", ["tables.csv", "tables.tex"])
def test_other_files_are_checked_too(board, name):
    (board / name).write_text((board / name).read_text() + "\n")
    (wrong,) = check(board)
    assert f"{name} does not follow from the rows" in wrong
    (board / name).unlink()
    (wrong,) = check(board)
    assert f"{name} is missing" in wrong


def test_the_check_is_of_the_columns_that_the_readme_was_made_with(results, store, tmp_path):
    out = tmp_path / "out"
    assert regenerate(store(*results), out, Request(("accuracy", "ece"))).messages == ["no run has measured ece"]
    assert "`kdbench leaderboard columns=accuracy,ece`" in (out / "README.md").read_text()
    assert check(out) == check(out, Request(("accuracy", "ece"))) == []
    assert len(check(out, Request(("accuracy",)))) == 3
    regenerate(tmp_path / "nowhere", out)
    assert "ECE" not in (out / "README.md").read_text()
    assert check(out) == []


def test_a_missing_readme_fails(board):
    (board / "README.md").unlink()
    (wrong,) = check(board)
    assert "missing" in wrong


@pytest.mark.parametrize(("old", "new"), [("52.0", "62.0"), ("12.5", "12.6"), ("kdbench run", "kdbench  run")])
def test_a_changed_row_fails(board, old, new):
    path = board / "results.csv"
    changed = path.read_text().replace(old, new, 1)
    assert changed != path.read_text()
    path.write_text(changed)
    assert any("README.md" in wrong for wrong in check(board))


def test_a_column_that_no_table_shows_is_guarded_too(result, store, tmp_path):
    regenerate(store(result("ce", cost__flops=123456)), tmp_path / "out")
    path = tmp_path / "out" / "results.csv"
    path.write_text(path.read_text().replace("123456", "123457"))
    assert len(check(tmp_path / "out")) == 1


def test_a_csv_in_another_form_fails_and_is_put_right(board, tmp_path):
    path = board / "results.csv"
    before = contents(board)
    head, *rows = path.read_text().splitlines()
    path.write_text("\r\n".join([head, *reversed(rows)]) + "\r\n")
    (wrong,) = check(board)
    assert "results.csv is not in the form" in wrong
    regenerate(tmp_path / "nowhere", board)
    assert contents(board) == before


def test_no_csv_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="kdbench leaderboard"):
        check(tmp_path)


def test_a_damaged_csv_is_left_alone(results, store, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.csv").write_text("mine\n")
    with pytest.raises(UserError, match="lacks the column"):
        regenerate(store(*results), out)
    assert contents(out) == {"results.csv": b"mine\n"}


def test_a_damaged_line_is_told_left_out_and_put_back_from_its_folder(board, tmp_path):
    before = contents(board)
    lines = before["results.csv"].splitlines(keepends=True)
    (board / "results.csv").write_bytes(b"".join([*lines[:2], lines[2][:50] + b"\n", *lines[3:]]))
    (wrong,) = check(board)
    assert "results.csv, line 3 is not the result of a run: it has" in wrong
    damaged = (board / "results.csv").read_bytes()
    outcome = regenerate(tmp_path / "nowhere", board)
    (kept,) = board.glob("results.damaged-*.csv")
    assert outcome.messages == [
        f"{board / 'results.csv'} was damaged; the original is kept in {kept}",
        f"{wrong}; it is left out now",
    ]
    assert (outcome.runs, check(board)) == (7, [])
    assert regenerate(tmp_path / "runs", board).runs == 8
    assert contents(board) == {**before, kept.name: damaged}


def test_of_many_sentences_the_first_are_printed_and_the_others_counted(results, store, tmp_path, capsys):
    runs = store(*results)
    for number in range(12):
        (runs / f"half{number:02}").mkdir()
        (runs / f"half{number:02}" / "result.json").write_text("{")
    assert main(["leaderboard", "--runs", str(runs), "--out", str(tmp_path / "out")]) == 0
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 11
    assert all(f"half{number:02}" in line for number, line in enumerate(errors[:10]))
    assert errors[10] == "kdbench: and 2 more of this kind"


def test_nothing_at_all_says_so(tmp_path):
    outcome = regenerate(tmp_path / "runs", tmp_path / "out")
    assert (outcome.runs, outcome.tables) == (0, [])
    assert "no results yet" in (tmp_path / "out" / "README.md").read_text()
    assert check(tmp_path / "out") == []


def test_hostile_commands_and_names_stay_in_the_list(result, store, tmp_path):
    bad = "x`</details>\n\n# Mine\n| a | b |"
    regenerate(store(result(bad, run="odd", provenance__command=bad, dataset=bad)), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert len(re.findall(r"^# ", text, re.M)) == 1
    assert len(re.findall(r"^</details>", text, re.M)) == 1
    assert check(tmp_path / "out") == []


def test_the_report_needs_no_torch():
    program = "import sys, kdbench.report.leaderboard; sys.exit('torch' in sys.modules or 'scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
