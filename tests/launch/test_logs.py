"""Logs as pieces; how they are printed is in tests/cli/commands/test_logs.py."""

import pytest

from kdbench.launch.logs import EPOCHS_SHOWN, JOB_LINES, LONGEST_LINE, Epochs, RunLogs, Text, reason
from kdbench.store.folder import EPOCHS, LOG, SUBMISSION, RunFolder


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path, "run")
    folder.path.mkdir()
    return folder


def test_log_txt_is_read_whole_and_then_what_is_added(folder):
    logs = RunLogs(folder)
    assert logs.read() == []
    folder.log("\n".join(map(str, range(100))))
    assert logs.read() == [Text(folder / LOG, "".join(f"{n}\n" for n in range(100)))]
    assert logs.read() == []
    folder.log("more")
    assert logs.read() == [Text(folder / LOG, "more\n")]
    (folder / LOG).write_text("from the start\n")
    assert logs.read() == [Text(folder / LOG, "from the start\n")]


def test_a_job_shows_its_last_lines_and_the_next_job_all_of_them(folder, tmp_path):
    first, second = tmp_path / ".slurm" / "1.out", tmp_path / ".slurm" / "2.out"
    first.parent.mkdir()
    first.write_text("".join(f"{n}\n" for n in range(50)))
    folder.write(SUBMISSION, {"job": "1", "log": str(first)})
    logs = RunLogs(folder)
    assert logs.read() == [Text(first, "".join(f"{n}\n" for n in range(50 - JOB_LINES, 50)))]
    second.write_text("".join(f"{n}\n" for n in range(30)))
    folder.write(SUBMISSION, {"job": "2", "log": str(second)})
    assert logs.read() == [Text(second, second.read_text())]


def test_epochs_that_are_replaced_are_read_again(folder):
    def write(*losses, rest=""):
        lines = [f"{number},{loss}" for number, loss in enumerate(losses, 1)]
        (folder / EPOCHS).write_text("\n".join(["epoch,loss", *lines, rest]))

    def rows(*pieces):
        return [tuple(row) for piece in pieces for row in piece.rows]

    write(*range(9), rest="10,ha")
    logs = RunLogs(folder)
    (piece,) = logs.read()
    assert isinstance(piece, Epochs)
    assert (list(piece.names), piece.omitted, len(piece.rows)) == (["epoch", "loss"], 4, EPOCHS_SHOWN)
    write(*range(7))
    assert logs.read() == []
    write(*range(7), 70, 80)
    assert rows(*logs.read()) == [("8", "70"), ("9", "80")]
    write(*range(6), 60, 70)
    assert rows(*logs.read()) == [("7", "60"), ("8", "70")]


@pytest.mark.parametrize("log", ["/etc/passwd", "../secret", "..", "", ".slurm/../../secret", ["a"], 3, "link"])
def test_a_record_names_no_log_outside_the_folder_of_logs(folder, tmp_path, log):
    (tmp_path / ".slurm").mkdir()
    (tmp_path / ".slurm" / "link").symlink_to("/etc/passwd")
    (tmp_path / "secret").write_text("mine")
    folder.write(SUBMISSION, {"job": "1", "log": log})
    assert RunLogs(folder).read() == []


def test_a_log_is_found_where_the_folder_of_runs_is_now(folder, tmp_path):
    (tmp_path / ".slurm").mkdir()
    (tmp_path / ".slurm" / "1_0_log.out").write_text("a line\n")
    folder.write(SUBMISSION, {"job": "1", "log": "/before/runs/.slurm/1_0_log.out"})
    assert RunLogs(folder).read() == [Text(tmp_path / ".slurm" / "1_0_log.out", "a line\n")]


def test_a_link_out_of_the_folder_is_not_shown(folder, tmp_path):
    (tmp_path / "secret").write_text("epoch,loss\n1,2\n")
    for name in (LOG, EPOCHS):
        (folder / name).symlink_to(tmp_path / "secret")
    assert RunLogs(folder).read() == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            b"Traceback\n  File\nkdbench.errors.UserError: no such folder\nsrun: error: n1: task 0: Exited\n",
            "no such folder",
        ),
        (
            b"ModuleNotFoundError: No module named 'encodings'\n\nCurrent thread 0x1:\n  <no Python frame>\n",
            "ModuleNotFoundE",
        ),
        (
            b"slurmstepd-n2: error: execve(): /no/python: No such file\nsrun: error: n2: task 0: Exited\n",
            "slurmstepd-n2: er",
        ),
        (b"srun: fatal: SLURM_MEM_PER_CPU and SLURM_MEM_PER_NODE are mutually exclusive.\n", "srun: fatal: SLURM_MEM"),
        (b"bash: line 3: mod\xfcle: command not found\n\n", "bash: line 3: mod\\xfcle: command"),
        (b"x" * 100_000, "x" * LONGEST_LINE),
        (b"\n\n", None),
    ],
)
def test_the_reason_in_the_log_of_a_job_that_ended_too_early(tmp_path, text, expected):
    (tmp_path / "log").write_bytes(text)
    shown = reason(tmp_path / "log")
    assert shown == expected if expected is None else shown.startswith(expected)


def test_no_reason_where_there_is_no_log(tmp_path):
    for path in (tmp_path / "missing", tmp_path, tmp_path / "zero\0byte"):
        assert reason(path) is None
