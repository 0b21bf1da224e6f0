"""Output as programs and log files see it: encodings, pipes, and one place through which everything is printed."""

import ast
import io
import sys
from pathlib import Path

import pytest

from kdbench.cli.main import main
from kdbench.plan import expand, request
from kdbench.store.folder import CHECKPOINT, RunFolder

ROOT = Path(__file__).parents[2]
SPECS = expand.plan(request.parse(["methods=ce,byot", "dataset=digits", "seeds=0,1"]))


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, spec in enumerate(SPECS):
        folder = RunFolder(tmp_path / "runs", spec.id)
        folder.enqueue(spec.plain())
        folder.begin(f"# {spec.command()}\n\n{spec.config}")
        (folder / CHECKPOINT).touch()
        measured = {
            "accuracy.last": 60.0 + place**2,
            "seconds.train": 9.0,
            "cost.images_per_second": 1e3,
            "images_seen": 10,
        }
        folder.finish({**spec.identity(), "status": "finished", **measured})
    return tmp_path / "runs"


def test_commands_print_through_the_two_functions_and_the_console_only():
    for path in sorted((ROOT / "kdbench" / "cli").rglob("*.py")):
        names = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(getattr(node, "func", None), ast.Name)
        }
        assert "print" not in names or path.name == "printing.py", path
        assert "Console" not in names, path


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize(
    "words",
    [
        *(
            ["list"],
            ["list", "columns"],
            ["show", "methods=corsd"],
            ["run", "--dry-run"],
            ["run", "--help"],
            ["status", "--all"],
        ),
        *(
            ["power", "--out", str(ROOT / "leaderboard")],
            ["run", "methods=ce,byot", "seeds=0,1"],
            ["diff", "kd", "rkd"],
        ),
        *(
            ["leaderboard", "rows=method", "columns=student"],
            ["leaderboard", "--check", "--out", str(ROOT / "leaderboard")],
        ),
    ],
)
def test_a_character_that_the_encoding_lacks_is_replaced(runs, monkeypatch, encoding, words):
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", output)
    try:
        status = main(words)
    except SystemExit as end:  # of --help
        status = end.code
    assert status in (0, 1 if words[0] == "diff" else 0)
    assert output.buffer.getvalue() or "--check" in words


def test_force_color_colours_no_pipe_and_shortens_no_id(runs, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    run = ["run", "methods=ce,byot", "seeds=0,1"]
    for words in (["status", "--all"], [*run, "--dry-run"], ["list"], run):
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err, words
        if "--all" in words or "--dry-run" in words:
            assert all(any(line.split()[0] == spec.id for line in out.splitlines() if line) for spec in SPECS)


def test_the_table_has_its_full_width_where_there_is_no_terminal(runs, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["run", "methods=ce,byot", "seeds=0,1"]) == 0
    out = capsys.readouterr().out
    assert all(title in out for title in ("Accuracy %", "Δ ce", "Images", "Train s", "Images/s"))
    assert "a wider terminal" not in out
    assert not any(line.endswith(" " * 20) for line in out.splitlines())
