"""The files of `kdbench leaderboard --plots`: which there are, their bytes, and what is said of what is not drawn."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from kdbench.cli.main import main
from kdbench.report.leaderboard import regenerate
from kdbench.report.plots import figures
from kdbench.report.tables.tables import summarise

PLACE = "digits-cnn-1f9c20"
ALL = {f"{PLACE}/{name}" for name in ("cost", "curves", "severity", "exits", "early-exit")} | {"critical-difference"}
EPOCHS = "epoch,images,seconds,accuracy.val\n" + "".join(f"{i},{100 * i},{i},{40 + i + 0.25}\n" for i in range(1, 4))
HOSTILE = [
    "$x^2$",
    "$\\frac$",
    "_a_",
    "<b>&amp;</b>]]>",
    "\\textbf{",
    "a--b-->",
    "猫é",
    "a\nb",
    "n" * 2_000,
    "\0\x1b\u202e",
    "%s{}",
]
MEASURED = {
    **{f"robustness.severity.{s}": 50.0 - 4 * s for s in range(1, 6)},
    **{
        "cost.flops": 3000,
        "cost.flops.exit1": 1000,
        "exits.exit1": 41.0,
        "early_exit.flops.0.9": 2000,
        "early_exit.accuracy.0.9": 44.0,
    },
}


def measured(result, methods=("ce", "kd"), seeds=2, **changes):
    return [
        result(method, seed, 50.0 + seed + 2 * i, run=f"r{i}-{seed}", **changes) | MEASURED
        for i, method in enumerate(methods)
        for seed in range(seeds)
    ]


@pytest.fixture
def results(result):
    """Two tables of which one has everything that can be drawn."""
    other = [row | {"run": f"o{row['run']}"} for row in measured(result, dataset="letters")]
    return [*measured(result), *[{k: v for k, v in row.items() if k not in MEASURED} for row in other]]


@pytest.fixture
def filled(store):
    """Run folders, with epochs for those named."""

    def put(results, prefix="r"):
        runs = store(*results)
        for row in results:
            if row["run"].startswith(prefix):
                (runs / row["run"] / "epochs.csv").write_text(EPOCHS)
        return runs

    return put


def names(out):
    plots = out / "plots"
    return {str(path.relative_to(plots).with_suffix("")) for path in plots.rglob("*") if path.is_file()}


def contents(out):
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (out / "plots").rglob("*")
        if path.is_file()
    }


def test_what_is_drawn_and_what_is_said_of_the_rest(results, filled, tmp_path, capsys):
    runs = filled(results)
    assert main(["leaderboard", "--plots", "--runs", str(runs), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert names(tmp_path / "out") == ALL | {"letters-cnn-1f9c20/cost"}
    assert f"{tmp_path / 'out' / 'plots'}: 7 plots, each as SVG and PNG\n" in said.out
    assert said.err.splitlines() == [
        "kdbench: letters-cnn-1f9c20: severity is not drawn: no run has measured corruptions",
        "kdbench: letters-cnn-1f9c20: exits is not drawn: no method has exits of which the FLOPs are known",
        f"kdbench: curves are left out, because no run folder is in {runs}: letters-cnn-1f9c20",
    ]


@pytest.mark.exhaustive
def test_same_rows_same_bytes(results, filled, tmp_path):
    """In any order, in another process, with other hashes."""
    runs = filled(results)
    sha256 = regenerate(runs, tmp_path / "board").sha256
    figures.write(summarise(results), runs, tmp_path / "a", sha256)
    figures.write(summarise(results[::-1]), runs, tmp_path / "b", sha256)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    words = ["leaderboard", "--plots", "--runs", str(runs), "--out", str(tmp_path / "c")]
    code = "import sys; from kdbench.cli.main import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code, *words], check=True, env=environment, capture_output=True)
    assert contents(tmp_path / "a") == contents(tmp_path / "c")


def test_each_holds_the_checksum_of_its_rows(results, filled, tmp_path):
    out = tmp_path / "out"
    assert main(["leaderboard", "--plots", "--runs", str(filled(results)), "--out", str(out)]) == 0
    sha256 = hashlib.sha256((out / "results.csv").read_bytes()).hexdigest().encode()
    assert len(figures.paths(out)) == 2 * len(names(out))
    assert all(sha256 in path.read_bytes() for path in figures.paths(out))


def test_left_out_lines_are_named(result, filled, tmp_path):
    bare = [result("at", 0), result("crd", 0) | {"exits.exit1": 40.0}]
    rows = [*measured(result), *bare, result("rkd", 0, None, status="failed", error="boom")]
    said = figures.write(summarise(rows), filled(rows), tmp_path).messages
    assert said == [
        f"{PLACE}: left out: rkd: no run has finished",
        f"{PLACE}: curves leaves out at, crd: no run folder of theirs has a validation curve",
        f"{PLACE}: severity leaves out at, crd: not measured",
        f"{PLACE}: exits leaves out crd: the FLOPs are not known",
        f"{PLACE}: early-exit leaves out crd: not measured",
        "critical-difference is not drawn: no two tables share two methods",
    ]


def test_nothing_to_draw(result, tmp_path):
    drawn = figures.write(summarise([result("ce", 0, None, status="failed", error="boom")]), tmp_path, tmp_path)
    assert drawn.files == []
    assert drawn.messages[0] == f"{PLACE}: nothing is drawn: no run has finished"
    assert list(tmp_path.iterdir()) == []


def test_no_runs_at_all(tmp_path, capsys):
    assert main(["leaderboard", "--plots", "--runs", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "0 plots" in said.out
    assert not (tmp_path / "out" / "plots").exists()


def test_stale_pictures_go_and_the_users_files_stay(result, tmp_path):
    table = summarise([result("ce", 0), result("kd", 0)])
    plots = tmp_path / "plots"
    for name in ("digits-cnn-00ff00/cost.svg", f"{PLACE}/exits.png", f"{PLACE}/mine.svg", "critical-difference.svg"):
        (plots / name).parent.mkdir(parents=True, exist_ok=True)
        (plots / name).write_text("of an earlier call, or the user's")
    for name in ("mine/cost.svg", "cost.svg", "notes.txt", f"{PLACE}/deep/cost.svg"):
        (plots / name).parent.mkdir(parents=True, exist_ok=True)
        (plots / name).write_text("the user's")
    figures.write(table, tmp_path, tmp_path)
    assert names(tmp_path) == {f"{PLACE}/cost", f"{PLACE}/mine", "mine/cost", "cost", "notes", f"{PLACE}/deep/cost"}
    assert not (plots / "digits-cnn-00ff00").exists()


def test_an_unchanged_picture_is_not_written_again(result, tmp_path):
    table = summarise([result("ce", 0)])
    (path, _) = figures.write(table, tmp_path, tmp_path).files
    os.utime(path, (1, 1))
    figures.write(table, tmp_path, tmp_path)
    assert path.stat().st_mtime == 1


@pytest.mark.exhaustive
def test_hostile_names_are_drawn_as_they_are(result, filled, tmp_path):
    rows = measured(result, ["ce", *HOSTILE], seeds=1)
    rows[1] |= {"method.parameters": json.dumps({"$a_b^": "\ud800"})}
    other = [row | {"run": f"o{row['run']}", "dataset": "/../" + HOSTILE[8], "student": "$s_"} for row in rows]
    drawn = figures.write(summarise(rows + other), filled(rows + other), tmp_path)
    assert len(drawn.files) == 2 * (5 + 4 + 1), "all of one table, all but curves of the other, and the diagram"
    for path in drawn.files:
        assert path.is_relative_to(tmp_path / "plots")
        if path.suffix == ".svg":
            tree = ElementTree.fromstring(path.read_bytes())
            assert {element.tag.rpartition("}")[2] for element in tree.iter()} <= {
                *("svg", "metadata", "defs", "style", "g", "path", "use", "clipPath", "rect"),
                *("RDF", "Work", "type", "format", "title", "creator", "Agent", "date", "description", "source"),
            }


def test_names_are_paths_that_any_computer_takes(result):
    tables = summarise(
        [result(run=f"r{i}", dataset=d) for i, d in enumerate(["é", "ü", "..", "a/b", "a_b", "x" * 300, "x" * 301])]
    )
    folders = figures.places(tables)
    assert len({place.lower() for place in folders}) == 7
    assert all(len(place) < 250 and not place.startswith(".") and "/" not in place for place in folders)


def test_without_matplotlib(filled, results, tmp_path):
    code = "import sys; sys.modules['matplotlib'] = None; from kdbench.cli.main import main; sys.exit(main())"
    words = ["leaderboard", "--plots", "--runs", str(filled(results)), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "kdbench: plots need matplotlib, which is not installed: pip install 'kdbench[plots]'\n"
    assert not (tmp_path / "out").exists()


def test_check_draws_nothing(capsys):
    assert main(["leaderboard", "--plots", "--check"]) == 2
    assert "--plots" in capsys.readouterr().err
