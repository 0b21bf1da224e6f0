import threading
import time

import pytest

from kdbench.cli.commands import logs
from kdbench.cli.main import main
from kdbench.launch import logs as logs_
from kdbench.plan import expand, request
from kdbench.store.folder import CHECKPOINT, EPOCHS, LOG, SUBMISSION, RunFolder

(SPEC,) = expand.plan(request.parse(["methods=ce", "dataset=digits"]))
HEAD = "epoch,images,seconds,lr,accuracy.val,loss,loss.ce\n"


def row(epoch):
    return f"{epoch},{1000 * epoch},1.25,0.093319878,,4.047058582,4.047\n"


def table(text):
    """The epochs that are shown, in order."""
    return [int(line.split()[0]) for line in text.splitlines() if len(line.split()) == 6 and line.split()[0].isdigit()]


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path, SPEC.id)
    folder.enqueue(SPEC.plain())
    return folder


@pytest.fixture
def begun(folder, tmp_path):
    folder.begin("")
    folder.log("resuming at step 3\nTraceback: none")
    (folder / EPOCHS).write_text(HEAD + "".join(map(row, range(1, 10))) + "10,half")
    job = tmp_path / ".slurm" / "job.out"
    job.parent.mkdir()
    job.write_text("".join(f"line {number}\n" for number in range(50)))
    folder.write(SUBMISSION, {"job": "7_1", "log": str(job)})
    return folder


def test_all_that_was_written_with_headings(begun, tmp_path, capsys):
    assert main(["logs", "ce-digits", "--runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{SPEC.id}: stopped, ")
    assert f"== {begun / LOG}\nresuming at step 3\nTraceback: none\n" in out
    assert f"== {begun / EPOCHS}, the last 5 epochs\n" in out
    assert table(out) == [5, 6, 7, 8, 9]
    assert "0.09332" in out
    assert "line 49\n" in out
    assert out.count("\nline ") == logs_.JOB_LINES


def test_a_run_that_has_written_nothing(folder, tmp_path, capsys):
    assert main(["logs", SPEC.id, "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{SPEC.id}: planned\nThe run has not written any logs yet.\n"


def test_a_failed_run_is_exit_status_1(begun, tmp_path, capsys):
    begun.finish({**SPEC.identity(), "status": "failed", "error": "the loss is not finite"})
    assert main(["logs", SPEC.id, "--follow", "--runs", str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith(f"{SPEC.id}: failed, the loss is not finite\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "logs takes one run, as in kdbench logs RUN; 0 given"),
        (["cee"], f"did you mean '{SPEC.id}'? See all with: kdbench status --all"),
        (["ce-digits"], "'ce-digits' is ambiguous; it matches 2 runs: "),
        (["ce-digits-resnet14"], "is not a run folder (it has no config.gin)"),
    ],
)
def test_one_run_is_meant(folder, tmp_path, capsys, words, sentence):
    (tmp_path / "ce-digits-resnet14-s0-00").mkdir()
    assert main(["logs", *words, "--runs", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert sentence in line


def test_a_path_is_as_good_as_an_id(begun, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    assert main(["logs", f"{tmp_path.name}/{SPEC.id}/", "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(SPEC.id)


def test_follow_goes_on_until_the_run_has_ended(begun, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logs, "EVERY", 0.02)
    follower = threading.Thread(target=main, args=[["logs", SPEC.id, "--follow", "--runs", str(tmp_path)]])
    follower.start()
    said = ""

    def until(text):
        nonlocal said
        end = time.monotonic() + 10
        while text not in said:
            assert time.monotonic() < end, said
            time.sleep(0.02)
            said += capsys.readouterr().out

    until("line 49\n")
    said = ""
    begun.log("resuming at step 9")
    with (tmp_path / ".slurm" / "job.out").open("a") as file:
        file.write("half a ")
        file.flush()
        until("half a ")
        file.write("line\n")
    until("line\n")
    # Another process goes on from the state after epoch 8, in another job.
    (begun / EPOCHS).write_text(HEAD + "".join(map(row, range(1, 9))))
    time.sleep(0.1)
    with (begun / EPOCHS).open("a") as file:
        file.write(row(9) + row(10))
    (tmp_path / ".slurm" / "again.out").write_text("again\n")
    begun.write(SUBMISSION, {"job": "8", "log": str(tmp_path / ".slurm" / "again.out")})
    until("again\n")
    until(" 10000 ")
    (begun / CHECKPOINT).touch()
    begun.log("the end")
    begun.finish({**SPEC.identity(), "status": "finished", "accuracy.last": 71.2, "seconds.train": 9.0})
    until(": done, ")
    follower.join(10)
    assert table(said) == [9, 10]
    assert [said.count(text) for text in ("step 9\n", "half a line\n", "again\n", "the end\n", "line 49")] == [
        1,
        1,
        1,
        1,
        0,
    ]
    assert said.endswith(f"\n{SPEC.id}: done, 71.20 % in 0:09\n")
