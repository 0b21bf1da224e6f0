import json
import threading
import time

import pytest

from kdbench.cli.commands import status
from kdbench.cli.main import main
from kdbench.plan import expand, request
from kdbench.store.folder import CANCELLED, CHECKPOINT, RunFolder

TEACHER, *SPECS = expand.plan(request.parse(["methods=ce,kd,corsd", "dataset=digits", "seeds=0,1"]))
CE, CE1, KD = SPECS[:3]


@pytest.fixture
def ask(tmp_path):
    """Puts a run into the folder, with its result if one is given."""

    def put(spec, **result):
        folder = RunFolder(tmp_path, spec.id)
        folder.enqueue(spec.plain())
        if result:
            folder.begin(spec.config)
            (folder / CHECKPOINT).touch()
            folder.finish({**spec.identity(), **result})

    return put


@pytest.fixture
def finished(ask):
    return lambda spec: ask(spec, status="finished", **{"accuracy.last": 71.234, "seconds.train": 75.0})


def test_status_in_a_pipe(tmp_path, ask, finished, capsys):
    ask(CE), finished(CE1)
    words = ["status", "--runs", str(tmp_path)]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == ["2 runs: 1 planned, 1 done", f"{CE.id}  planned"]
    assert main([*words, "--all"]) == 0
    assert capsys.readouterr().out.splitlines()[2] == f"{CE1.id}  done       71.23 % in 1:15"
    ask(KD, status="failed", error="OutOfMemoryError: CUDA\n 15 GiB\n see [there]\n")
    assert main(words) == 1
    assert f"{KD.id}  failed     OutOfMemoryError: CUDA … see [there]" in capsys.readouterr().out
    assert main([*words, "ce-digits"]) == 0
    assert capsys.readouterr().out.startswith("2 runs: 1 planned, 1 done\n")
    assert main([*words, "--json", "state=done"]) == 0
    (status,) = json.loads(capsys.readouterr().out)
    assert status == status | {"id": CE1.id, "state": "done", "accuracy": 71.234, "seed": 1, "error": None}


def test_no_folder_and_no_runs_are_one_sentence(tmp_path, capsys):
    assert main(["status", "--runs", str(tmp_path / "no")]) == 0
    assert capsys.readouterr().out.startswith(f"the folder {tmp_path / 'no'} does not exist: ")
    assert main(["status", "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"there are no runs in {tmp_path}\n"
    assert main(["status", "--json", "--runs", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_watch_in_a_pipe_tells_changes_until_all_have_ended(tmp_path, ask, finished, capsys, monkeypatch):
    monkeypatch.setattr(status, "EVERY", 0.02)
    ask(CE), ask(CE1)
    done = threading.Thread(target=main, args=[["status", "--watch", "--runs", str(tmp_path)]])
    done.start()
    time.sleep(0.3)
    finished(CE)
    time.sleep(0.3)
    (RunFolder(tmp_path, CE1.id) / CANCELLED).touch()
    done.join(10)
    assert not done.is_alive()
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[-1]) == ("2 runs: 2 planned", "2 runs: 1 cancelled, 1 done")
