"""`kdbench power` as a user meets it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from kdbench.cli.main import main
from kdbench.report.leaderboard import regenerate

SEEDS = (0, 1, 2)


@pytest.fixture
def three(result):
    """Differences to ce of 2, 3, 1 (kd, sd 1), of 1, 1.5, 2 (rkd, sd ½), and crd with one seed."""
    ce = [result("ce", seed, 50.0 + seed) for seed in SEEDS]
    kd = [result("kd", seed, accuracy, taught=True) for seed, accuracy in zip(SEEDS, (52.0, 54.0, 53.0), strict=True)]
    rkd = [result("rkd", seed, accuracy) for seed, accuracy in zip(SEEDS, (51.0, 52.5, 54.0), strict=True)]
    return [*ce, *kd, *rkd, result("crd", 0, 53.0)]


def grid(out):
    """Line → its cells, without the rule below the head."""
    lines = [re.split(r"  +", line.strip()) for line in out.splitlines()]
    return {cells[0]: cells[1:] for cells in lines if len(cells) > 4}


def test_each_line_and_the_pooled_one_by_hand(three, store, capsys):
    assert main(["power", "--runs", str(store(*three))]) == 0
    out = capsys.readouterr().out
    # t(2) = 4.302653 and noncentrality 5.653489, both over √3: 2.484 and 3.264 for an sd of 1
    assert grid(out) == {
        "Method": ["n", "sd", "shows", "detects", "seeds for 0.5", "seeds for 1"],
        "kd, teacher resnet20 (61.3)": ["3", "1.00", "2.5", "3.3", "34", "10"],
        "rkd": ["3", "0.50", "1.2", "1.6", "10", "5"],
        "all lines": ["3", "0.79", "2.0", "2.6", "22", "8"],  # √((1 + ¼) / 2)
    }
    assert out.splitlines()[0] == "digits · cnn · recipe short · protocol 1f9c20"
    assert "crd has only one seed in common with ce; the sd of differences needs at least two" in out


def test_differences_can_be_asked_for(three, store, capsys):
    assert main(["power", "difference=0.8,0.05", "--runs", str(store(*three))]) == 0
    lines = grid(capsys.readouterr().out)
    assert lines["Method"][-2:] == ["seeds for 0.8", "seeds for 0.05"]
    assert lines["kd, teacher resnet20 (61.3)"][-2:] == ["15", "over 1000"]


def test_differences_from_another_method(three, store, capsys):
    assert main(["power", "baseline=rkd", "--runs", str(store(*three))]) == 0
    out = capsys.readouterr().out
    assert grid(out)["ce"][:2] == ["3", "0.50"]
    assert "crd has only one seed in common with rkd" in out
    assert "n: seeds that the row and rkd have in common" in out


def test_a_baseline_that_no_table_has(three, store, capsys):
    assert main(["power", "baseline=kdd", "--runs", str(store(*three))]) == 2
    assert "did you mean 'kd'?" in capsys.readouterr().err


def test_rows_of_a_leaderboard(three, store, tmp_path, capsys):
    regenerate(store(*three), tmp_path / "board")
    main(["power", "--runs", str(tmp_path / "runs")])
    measured = capsys.readouterr().out
    assert main(["power", "--out", str(tmp_path / "board")]) == 0
    assert capsys.readouterr().out == measured


def test_one_seed_gets_a_sentence_instead_of_numbers(result, store, capsys):
    assert main(["power", "--runs", str(store(result("ce"), result("kd", 0, 53.0)))]) == 0
    out = capsys.readouterr().out
    assert "ce has only one seed here; the sd of differences needs at least two seeds: kdbench run … seeds=0,1,2" in out
    assert grid(out) == {}
    assert "detects" not in out


def test_tables_without_a_difference_say_why(result, store, capsys):
    alone = [result("ce", seed, 50.0 + seed, run=f"a{seed}", student="big") for seed in SEEDS]
    without = [result("kd", seed, 50.0 + seed, run=f"b{seed}", dataset="cifar10") for seed in SEEDS]
    apart = [result("ce", seed, 50.0 + seed) for seed in (0, 1)] + [result("kd", seed, 51.0) for seed in (2, 3)]
    assert main(["power", "--runs", str(store(*alone, *without, *apart))]) == 0
    out = capsys.readouterr().out
    assert "this table has only ce, so there is no difference to compute" in out
    assert "ce has no finished run here" in out
    assert "kd has no seed in common with ce" in out


def test_lines_with_other_numbers_of_seeds_share_no_n(three, result, store, capsys):
    fewer = [one for one in three if one["run"] != "rkd2"]
    main(["power", "--runs", str(store(*fewer))])
    lines = grid(capsys.readouterr().out)
    assert (lines["rkd"][0], lines["kd, teacher resnet20 (61.3)"][0]) == ("2", "3")
    # variances 1 with two degrees of freedom and ⅛ with one
    assert lines["all lines"][:4] == ["–", "0.84", "–", "–"]


def test_numbers_stay_whole_in_a_narrow_terminal(three, store, monkeypatch, capsys):
    from rich.console import Console

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(Console, "is_terminal", property(lambda self: True))
    main(["power", "--runs", str(store(*three))])
    lines = [re.sub("\x1b[^m]*m", "", line) for line in capsys.readouterr().out.splitlines()]
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert any(re.search(r"1\.00 +2\.5 +3\.3 +34 +10$", line.rstrip()) for line in lines)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["difference=0"], "difference must be a number of points above 0, such as difference=0.5,1, not '0'"),
        (["difference=a"], "not 'a'"),
        (["difference=,"], "'difference=' has no value"),
        (["difference=nan"], "not 'nan'"),
        (["difference=1", "difference=2"], "'difference' is given twice"),
        (["diference=1"], "unknown selection 'diference'; did you mean 'difference'?"),
        (["Train.epochs=2"], "valid: difference=0.5,1 and baseline=METHOD. See"),
        ([], "there are no results in"),
        (["--out", "nowhere"], "results.csv does not exist; create it with: kdbench leaderboard"),
        (["--out", "nowhere", "--runs", "runs"], "not allowed with"),
    ],
)
def test_wrong_input_is_answered_in_one_sentence(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["power", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert sentence in line


def test_a_result_that_cannot_be_used_is_named(three, store, capsys):
    runs = store(*three)
    (runs / "half").mkdir()
    (runs / "half" / "result.json").write_text("{")
    assert main(["power", "--runs", str(runs)]) == 0
    assert "half" in capsys.readouterr().err


def test_no_torch(three, store):
    call = f"main(['power', '--runs', {str(store(*three))!r}])"
    code = f"import sys; from kdbench.cli.main import main; {call}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
    assert "all lines" in done.stdout
