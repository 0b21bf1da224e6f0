"""Methods against students or datasets."""

from __future__ import annotations

import csv
import io

import pytest

from kdbench.cli.main import main
from kdbench.report.formats.grid_files import files
from kdbench.report.leaderboard import check, regenerate
from kdbench.report.tables.axes import Axes
from kdbench.report.tables.grids import differences, grids, section
from kdbench.report.tables.tables import summarise

BY_STUDENT, BY_DATASET = Axes("method", "student"), Axes("dataset", "method")
TEACHERS = {"resnet8": "resnet20", "wrn": "wrn_40_2"}


@pytest.fixture
def made(result):
    """ce, kd and at for two students of two datasets; kd is far ahead, and at lacks a seed on one and is missing on the other."""
    rows = []
    for dataset in ("a", "b"):
        for student, teacher in TEACHERS.items():
            taught = {"teacher": teacher, "teacher__accuracy": 72.25, "teacher__sha256": teacher}
            place = {"dataset": dataset, "student": student, "protocol": f"p{dataset}"}
            for seed in range(3):
                name = f"{dataset}{student}{seed}"
                rows.append(result("ce", seed, 60 + seed / 10, run=f"ce{name}", **place))
                rows.append(result("kd", seed, 70 + (seed**2) / 100, run=f"kd{name}", **place, **taught))
                if student == "wrn" and seed < 2:
                    rows.append(result("at", seed, 61 + seed, run=f"at{name}", **place, **taught))
    return rows


def texts(made):
    (columns,) = [section(grid).columns for grid in made]
    return {column.header: column.texts for column in columns}


def test_a_grid_by_hand(made):
    one, two = grids(summarise(made), BY_STUDENT)
    assert (one.title, two.title) == ("a", "b")
    assert texts([one]) == {
        "Method": ["Teacher", "ce", "at", "kd"],
        "resnet8": ["resnet20 (72.2)", "60.10 ± 0.25", "–", "70.02 ± 0.05"],
        "wrn": ["wrn_40_2 (72.2)", "60.10 ± 0.25", "61.50 ± 6.35 (n = 2)", "70.02 ± 0.05"],
    }
    intro = section(one).intro[0].text
    assert intro.startswith("All cells are runs of one recipe: short, protocol pa. ")
    assert "n = 3 seeds, unless a cell has another n" in intro
    # kd is significantly better than ce alone, but not than at, whose two seeds scatter
    strong = {column.header: set(column.strong) for column in section(one).columns}
    assert strong == {"Method": set(), "resnet8": {3}, "wrn": set()}
    assert "| **70.02 ± 0.05** |" in files([one], BY_STUDENT)["method-by-student.md"].decode()


def test_the_other_way_round_teachers_are_a_column(made):
    one, two = grids(summarise(made), BY_DATASET)
    assert (one.title, two.title) == ("resnet8", "wrn")
    assert texts([one])["Teacher"] == ["resnet20 (72.2)"] * 2
    assert texts([two])["at"] == ["61.50 ± 6.35 (n = 2)"] * 2
    assert "protocol pa for a, protocol pb for b" in section(one).intro[0].text


def test_students_and_datasets_on_one_axis_are_one_grid(made):
    by = Axes("method", "dataset,student")
    (one,) = grids(summarise(made), by)
    shown = texts([one])
    assert list(shown) == ["Method", "a resnet8", "a wrn", "b resnet8", "b wrn"]
    assert shown["b wrn"] == ["wrn_40_2 (72.2)", "60.10 ± 0.25", "61.50 ± 6.35 (n = 2)", "70.02 ± 0.05"]
    assert section(one).heading == "Method × dataset and student: recipe short"
    made_files = files([one], by)
    assert set(made_files) == {f"method-by-dataset-student.{ending}" for ending in ("md", "csv", "tex")}
    records = list(csv.DictReader(io.StringIO(made_files["method-by-dataset-student.csv"].decode())))
    assert list(records[0])[:4] == ["method", "dataset", "student", "recipe"]
    assert {(r["dataset"], r["student"]) for r in records if r["method"] == "at"} == {("a", "wrn"), ("b", "wrn")}
    (turned,) = grids(summarise(made), Axes("dataset,student", "method"))
    assert texts([turned])["Dataset and student"] == ["a resnet8", "a wrn", "b resnet8", "b wrn"]


def test_other_recipes_are_other_grids_and_other_protocols_are_named(made, result):
    more = [result("ce", seed, 50.0, dataset="a", student="wrn", protocol="q", run=f"q{seed}") for seed in range(3)]
    by_recipe = [row | {"recipe": "long"} for row in more]
    assert [grid.title for grid in grids(summarise([*made, *by_recipe]), BY_STUDENT)] == ["a", "a", "b"]
    assert [grid.title for grid in grids(summarise([*made, *by_recipe]), BY_DATASET)] == ["resnet8", "wrn", "wrn"]
    _, wrn = grids(summarise([*made, *more]), BY_DATASET)
    assert section(wrn).notes == ("a: left out, because of another protocol with fewer runs: q",)


def test_another_teacher_than_that_of_the_column_is_named(made, result):
    place = {"dataset": "a", "student": "resnet8", "protocol": "pa"}
    own = result("born", 0, 50.0, teacher="resnet8", teacher__accuracy=60.0, control='{"teacher": "student"}', **place)
    other = result("kd", 0, 50.0, run="kdother", teacher="big", teacher__accuracy=80.0, teacher__sha256="f", **place)
    one, _ = grids(summarise([*made, own, other]), BY_STUDENT)
    assert texts([one])["Method"] == ["Teacher", "ce", "at", "born", "kd", "kd, teacher big (80.0)"]
    assert "with another teacher: born for resnet8: resnet8 (60.0)" in section(one).notes


def test_teachers_alone_are_not_students(made, result):
    teacher = result("ce", 0, 72.0, dataset="a", student="resnet20", protocol="pa", run="t", purpose="teacher")
    one, _ = grids(summarise([*made, teacher]), BY_STUDENT)
    assert list(one.tables) == ["resnet8", "wrn"]


def test_the_differences_are_a_grid_of_their_own(made):
    # kd minus ce by seed: 10, 9.91, 9.84; at minus ce: 1, 1.9. Half-widths are t · s / √n with t = 4.3027 and 12.706.
    one, _ = grids(summarise(made), BY_STUDENT)
    (found,) = differences(one)
    assert found.heading == "Method × student, differences from ce: a"
    shown = {column.header: column.texts for column in found.columns}
    assert shown == {
        "Method": ["at", "kd"],
        "resnet8": ["–", "+9.92 ± 0.20"],
        "wrn": ["+1.45 ± 5.72 (n = 2)", "+9.92 ± 0.20"],
    }
    assert {column.header: set(column.strong) for column in found.columns} == {
        **{"Method": set(), "resnet8": {1}, "wrn": {1}},
    }
    assert "Bold: p ≤ 0.05" in found.intro[0].text
    (turned,) = differences(grids(summarise(made), Axes("student", "method"))[0])
    assert {column.header: column.texts for column in turned.columns}["at"] == ["–", "+1.45 ± 5.72 (n = 2)"]
    alone = [row for row in made if row["method"] == "kd"]
    assert differences(grids(summarise(alone), BY_STUDENT)[0]) == []


def test_the_baseline_of_a_grid_is_that_of_the_tables(made, store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store(*made)
    board = tmp_path / "leaderboard"
    assert main(["leaderboard", "rows=method", "columns=student", "baseline=kd"]) == 0
    assert "Method × student, differences from kd: a" in capsys.readouterr().out
    text = (board / "method-by-student.md").read_text()
    assert "`kdbench leaderboard rows=method columns=student baseline=kd`" in text
    assert "| -9.92 ± 0.20" in text.replace("**", "")
    assert "`kdbench leaderboard baseline=kd`" in (board / "README.md").read_text()
    assert main(["leaderboard", "rows=method", "columns=student"]) == 0
    assert (board / "method-by-student.md").read_text() == text, "as before"
    assert main(["leaderboard", "rows=method", "columns=student", "--check"]) == 0
    assert main(["leaderboard", "rows=method", "columns=student", "baseline=ce"]) == 0
    assert "differences from ce: a" in (board / "method-by-student.md").read_text()
    assert check(board) == []


def test_csv_and_latex(made):
    by_name = files(grids(summarise(made), BY_STUDENT), BY_STUDENT)
    rows = list(csv.DictReader(io.StringIO(by_name["method-by-student.csv"].decode())))
    assert len(rows) == 10
    kd = next(row for row in rows if (row["method"], row["student"], row["dataset"]) == ("kd", "resnet8", "b"))
    assert (kd["teacher"], kd["teacher_accuracy"], kd["n"], kd["best"]) == ("resnet20", "72.25", "3", "True")
    assert float(kd["accuracy"]) == pytest.approx(70 + 5 / 300)
    assert (kd["baseline"], kd["difference_n"]) == ("ce", "3")
    assert float(kd["difference"]) == pytest.approx(10 + 5 / 300 - 0.1)
    assert float(kd["p"]) < 0.001
    latex = by_name["method-by-student.tex"].decode()
    assert latex.count(r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%") == 4
    assert latex.count("{") == latex.count("}")
    assert r"\textbf{70.02 $\pm$ 0.05}" in latex
    assert r"\usepackage{booktabs,graphicx}" in latex


def test_a_grid_is_kept_up_to_date(made, result, store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store(*made)
    assert main(["leaderboard", "baseline=kd"]) == 0
    assert main(["leaderboard", "rows=method", "columns=student"]) == 0
    out = capsys.readouterr().out
    assert "method-by-student.md, .csv, .tex: 2 grids" in out
    assert "Method × student: a" in out
    board = tmp_path / "leaderboard"
    assert "`kdbench leaderboard baseline=kd`" in (board / "README.md").read_text(), "the tables stay as they were"
    assert check(board) == []
    store(result("ce", 9, 50.0, dataset="a", student="wrn", protocol="pa"))
    regenerate(tmp_path / "runs", board)
    assert "(n = 4)" in (board / "method-by-student.md").read_text()
    (board / "method-by-student.tex").write_text("")
    assert [sentence.split()[0] for sentence in check(board)] == [str(board / "method-by-student.tex")]
