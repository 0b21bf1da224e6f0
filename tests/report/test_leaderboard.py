from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys

import pytest

from kdbench.errors import UserError
from kdbench.report.leaderboard import check, regenerate

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


def test_same_bytes_whatever_the_order(results, store, board, tmp_path, monkeypatch):
    import os

    scandir, rng = os.scandir, random.Random(3)

    def shuffled(path):
        return iter(rng.sample(entries := list(scandir(path)), len(entries)))

    monkeypatch.setattr("os.scandir", shuffled)
    regenerate(tmp_path / "runs", tmp_path / "again")
    monkeypatch.undo()
    assert contents(tmp_path / "again") == contents(board)


def test_folders_in_any_number_of_steps_give_the_same(results, store, board, tmp_path):
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
    assert f"{name} is not what the rows" in wrong
    (board / name).unlink()
    (wrong,) = check(board)
    assert f"{name} is missing" in wrong


def test_the_check_is_of_the_columns_that_the_readme_was_made_with(results, store, tmp_path):
    out = tmp_path / "out"
    assert regenerate(store(*results), out, ("accuracy", "ece")).messages == ["no run has measured ece"]
    assert "`kdbench leaderboard columns=accuracy,ece`" in (out / "README.md").read_text()
    assert check(out) == check(out, ("accuracy", "ece")) == []
    assert len(check(out, ("accuracy",))) == 3
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
