"""One bad folder among good ones: it is shown with the reason, and every command does its work for the others."""

import contextlib
import json
import os

import pytest

from kdbench.audit import reproduce
from kdbench.cli.main import main
from kdbench.errors import UserError
from kdbench.plan import expand, request
from kdbench.store.folder import CHECKPOINT, PROGRESS, RESULT, SPEC, SUBMISSION, RunFolder

GOOD, OTHER, BAD = expand.plan(request.parse(["methods=ce", "dataset=digits", "seeds=0-2"]))
CONTROL = "\x1b]0;owned\x07\x9b31m\u202e"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs that are as they should be: one has finished, one has stopped."""
    monkeypatch.chdir(tmp_path)
    finished(RunFolder(tmp_path / "runs", GOOD.id), GOOD)
    started(RunFolder(tmp_path / "runs", OTHER.id), OTHER)
    return tmp_path / "runs"


def finished(folder, spec, **changed):
    folder.enqueue(spec.plain())
    folder.begin(f"# {spec.command()}\n\n{spec.config}")
    (folder / CHECKPOINT).touch()
    measured = {"accuracy.last": 71.0, "seconds.train": 9.0, "provenance.command": spec.command()}
    folder.finish({**spec.identity(), "status": "finished", **measured, **changed})


def started(folder, spec):
    folder.enqueue(spec.plain())
    folder.begin(f"# {spec.command()}\n\n{spec.config}")


def replaced(make):
    """Puts something else in the place of a file."""

    def damage(folder, name):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return damage


def with_entry(key, value):
    """Changes an entry of a JSON file."""

    def damage(folder, name):
        content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps({**content, key: value}))

    return damage


def text(content):
    return replaced(lambda path: path.write_bytes(content))


KINDS = {
    "a folder": replaced(lambda path: path.mkdir()),
    "a pipe": replaced(os.mkfifo),
    "a link outside": replaced(lambda path: path.symlink_to("/etc/hostname")),
    "an endless device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "huge": replaced(lambda path: path.write_bytes(b"[" + b"0," * (1 << 22) + b"0]")),
    "deep": text(b'{"a":' * 50_000),
    "a list": text(b"[1, 2]"),
    "half": text(b'{"run": "'),
    "bytes": text(bytes(range(256))),
}
RESULTS = {
    "text for a number": with_entry("accuracy.last", "high"),
    "a list for a number": with_entry("seconds.train", [1]),
    "an object for a name": with_entry("method", {"a": 1}),
    "a number for a name": with_entry("dataset", 3),
    "an absurd number": with_entry("seconds.train", 1e308),
    "a negative time": with_entry("seconds.train", -5.0),
    "an accuracy of 1e6": with_entry("accuracy.last", 1e6),
    "a seed of 400 digits": with_entry("seed", 10**399),
    "a list of teachers": with_entry("teacher.run", ["a"]),
}


@pytest.mark.parametrize("damage", [*KINDS.values(), *RESULTS.values()], ids=[*KINDS, *RESULTS])
def test_a_bad_result_is_shown_and_the_others_are_as_usual(runs, damage, capsys):
    bad = RunFolder(runs, BAD.id)
    finished(bad, BAD)
    damage(bad, RESULT)
    assert main(["status", "--all"]) == 0
    out = capsys.readouterr().out
    assert "3 runs: 1 stopped, 1 unreadable, 1 done" in out
    line = next(line for line in out.splitlines() if line.startswith(BAD.id))
    assert "result.json: it" in line
    assert len(line) < 400
    for words in (
        ["status", "--json"],
        ["status", "state=done"],
        ["logs", GOOD.id],
        ["cancel", OTHER.id],
        ["diff", *2 * [GOOD.id]],
    ):
        assert main(words) == 0, words
    assert main(["logs", BAD.id]) == 0
    assert main(["leaderboard"]) == 0
    captured = capsys.readouterr()
    assert f"{BAD.id}/result.json was skipped: it" in captured.err
    assert "1 table from 1 run" in captured.out
    for words in (["diff", GOOD.id, BAD.id], ["reproduce", BAD.id]):
        assert main(words) == 2, words
    err = capsys.readouterr().err
    assert err.count("kdbench: ") == err.count(BAD.id) == 2
    assert "Traceback" not in err


@pytest.mark.parametrize("name", [SPEC, PROGRESS, SUBMISSION])
@pytest.mark.parametrize("damage", KINDS.values(), ids=KINDS)
def test_a_bad_file_of_a_run_that_has_not_ended_is_named(runs, damage, name, capsys):
    bad = RunFolder(runs, BAD.id)
    started(bad, BAD)
    damage(bad, name)
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "3 runs: 1 stopped, 1 unreadable, 1 done" in out
    assert f"{name}: it" in next(line for line in out.splitlines() if line.startswith(BAD.id))
    assert main(["logs", BAD.id]) == 0
    assert main(["cancel", "all"]) == 0
    assert "cancelled 1 run: 1 stopped" in capsys.readouterr().out
    assert not (bad / "cancelled").exists()


@pytest.mark.parametrize(
    "damage",
    [
        *(
            with_entry(key, value)
            for key in ("method", "teacher_runs", "seed", "config")
            for value in (None, [[1]], {}, 1e308)
        ),
        with_entry("teacher_runs", ["../" + GOOD.id, "a\0b", "x" * 300, BAD.id, ""]),
    ],
)
def test_a_spec_of_other_types_takes_no_command_down(runs, damage, capsys):
    bad = RunFolder(runs, BAD.id)
    started(bad, BAD)
    damage(bad, SPEC)
    for words in (["status"], ["status", "--json"], ["logs", BAD.id], ["leaderboard"]):
        assert main(words) == 0, words
    assert f"{OTHER.id}  stopped" in capsys.readouterr().out


@pytest.mark.parametrize("damage", KINDS.values(), ids=KINDS)
def test_a_bad_lease_is_no_owner_for_ever(runs, damage, capsys):
    bad = RunFolder(runs, BAD.id)
    started(bad, BAD)
    damage(bad, "lease.3")
    assert main(["status", "--all"]) == 0
    assert BAD.id in capsys.readouterr().out
    assert main(["logs", BAD.id]) == 0


@pytest.mark.parametrize("name", ["config.gin", "epochs.csv", "log.txt"])
@pytest.mark.parametrize("damage", KINDS.values(), ids=KINDS)
def test_bad_texts_hang_nothing_and_end_in_no_traceback(runs, damage, name):
    bad = RunFolder(runs, BAD.id)
    finished(bad, BAD)
    damage(bad, name)
    for words in (["status", "--all"], ["logs", BAD.id], ["leaderboard", "--html"]):
        assert main(words) == 0, words
    is_refused = name == "config.gin" or (bad / name).is_symlink()  # to where the stranger's folder does not reach
    refused = pytest.raises(UserError) if is_refused else contextlib.nullcontext()
    with refused:
        reproduce.prepare(BAD.id, runs)


def test_control_characters_reach_neither_terminal_nor_files(runs, tmp_path, capsys):
    bad = RunFolder(runs, BAD.id)
    started(bad, BAD)
    bad.finish(
        {**BAD.identity(), "status": "failed", "error": f"=1+1{CONTROL}\nkdbench: forged", "teacher": f"=2{CONTROL}"}
    )
    (runs / f"odd{CONTROL}\nname").mkdir()
    (runs / f"odd{CONTROL}\nname" / SPEC).write_text("[]")
    (bad / "log.txt").write_bytes(b"before\x1b[2J\x9b\xe2\x80\xae after\n")
    (bad / "epochs.csv").write_text(f"epoch,{CONTROL}\n1,{CONTROL}\n")
    for words in (
        *(
            ["status", "--all"],
            ["logs", BAD.id],
            ["leaderboard", "--html"],
            ["cancel", "all"],
            ["diff", GOOD.id, BAD.id],
        ),
        *([f"stat{CONTROL}"], ["run", f"methods=c{CONTROL}"], ["list", CONTROL], ["logs", f"odd{CONTROL}"]),
        *(["reproduce", BAD.id], ["status", "--runs", f"no{CONTROL}"], ["power"]),
    ):
        main(words)
        for output in capsys.readouterr():
            assert not set(output) & set(CONTROL) - set("]0;owned31m"), words
            assert not any(line.startswith("kdbench: forged") for line in output.splitlines())
    for path in (tmp_path / "leaderboard").iterdir():
        content = path.read_text()
        assert not set(content) & {"\x1b", "\x07", "\x9b", "\u202e"}, path
    assert "\n=" not in (tmp_path / "leaderboard" / "tables.csv").read_text()
    assert ",'=2" in (tmp_path / "leaderboard" / "tables.csv").read_text()


def test_a_circle_of_teachers_is_cut(runs, capsys):
    for spec, teacher in ((OTHER, BAD), (BAD, OTHER)):
        folder = RunFolder(runs, spec.id)
        folder.enqueue({**spec.plain(), "teacher_runs": [teacher.id]})
    assert main(["status"]) == 0
    assert OTHER.id in capsys.readouterr().out
