"""`kdbench reproduce`: runs of a few steps are really trained again."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from kdbench.audit.reproduce import OUTCOME, carry_out, compare, prepare
from kdbench.cli.main import main
from kdbench.config import places, signature
from kdbench.errors import RunError
from kdbench.launch import local
from kdbench.store import ids as ids_
from kdbench.store.folder import RunFolder

pytestmark = pytest.mark.usefixtures("own_plugins")


@pytest.fixture
def here(finished, tmp_path, monkeypatch):
    """A copy of it, as the current folder."""
    shutil.copytree(finished, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "here"


def outcome(out, method="kd"):
    (path,) = out.glob(f"{method}-*/{OUTCOME}")
    return json.loads(path.read_text())


def test_a_run_comes_out_again_beside_the_runs(here, capsys, teacher):
    before = {p: p.stat().st_mtime_ns for p in here.glob("runs/*/*")}
    ids = ids_.run_ids(here / "runs")
    assert main(["reproduce", "kd-digits"]) == 0
    assert "Reproduced: the weights are bit-identical." in capsys.readouterr().out, "in the same environment"
    content = outcome(here / "runs" / "reproduced")
    assert content["identical"]
    assert content["accuracy"]["accuracy.last"]["difference"] == 0
    assert content["environment"]["provenance.threads"] == {"stored": "1", "here": "1"}
    assert content["remarks"] == []
    assert not (teacher(here / "runs" / "reproduced") / "epochs.csv").exists(), "the teacher was there already"

    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert ids_.run_ids(here / "runs") == ids
    assert main(["leaderboard"]) == 0
    assert "1 table from 2 runs, unchanged" in capsys.readouterr().out
    assert main(["reproduce", "kd-digits"]) == 0, "and again"
    (spec,) = here.glob("runs/reproduced/kd-*/config.gin")
    assert "# kdbench run methods=kd" in spec.read_text()


def test_what_was_measured_is_measured_again_and_a_run_from_before_there_were_measures_as_now(here):
    (config,) = here.glob("runs/kd-*/config.gin")
    assert main(["reproduce", "kd-digits", "--out", "again"]) == 0
    (again,) = here.glob("again/kd-*/config.gin")
    assert "Measures.corruptions = False" in again.read_text()
    config.write_text("".join(line for line in config.open() if "easure" not in line))
    assert main(["reproduce", "kd-digits", "--out", "old"]) == 0
    assert outcome(here / "old")["remarks"] == []
    (old,) = here.glob("old/kd-*/config.gin")
    assert "Measures.corruptions = True" in old.read_text()


def test_a_teacher_that_is_not_what_it_was_is_trained_first(here, capsys, teacher):
    (teacher(here / "runs") / "checkpoint.pt").write_bytes(b"other")
    assert main(["reproduce", "kd-digits", "--out", "again"]) == 0
    assert (teacher(here / "again") / "epochs.csv").exists()
    assert outcome(here / "again")["environment"]["teacher.sha256"]["here"]


def test_a_row_of_the_leaderboard_is_enough(here, capsys, teacher):
    shutil.rmtree(here / "runs")
    assert main(["reproduce", "kd-digits"]) == 0
    assert outcome(here / "runs" / "reproduced")["identical"]
    assert (teacher(here / "runs" / "reproduced") / "epochs.csv").exists()


@pytest.fixture
def extracted(here, monkeypatch):
    """The archive of the leaderboard, unpacked and alone, as the current folder."""
    assert main(["export"]) == 0
    shutil.unpack_archive(here / "leaderboard.zip", here.parent / "extracted")
    shutil.rmtree(here)
    monkeypatch.chdir(here.parent / "extracted")
    return here.parent / "extracted"


def test_the_archive_is_enough(extracted, capsys):
    (run,) = (extracted / "runs").glob("kd-*")
    for word, out in ((run.name, "by-id"), (f"runs/{run.name}", "by-folder")):
        assert main(["reproduce", word, "--out", out]) == 0
        content = outcome(extracted / out)
        assert (content["identical"], content["remarks"]) == (True, [])
        (again,) = extracted.glob(f"{out}/kd-*/config.gin")
        assert "Measures.corruptions = False" in again.read_text(), "of its configuration, which no row has"
    assert main(["leaderboard", "--check"]) == 0


def test_from_elsewhere_the_archive_needs_the_folder_of_its_rows(extracted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (run,) = (extracted / "runs").glob("kd-*")
    assert main(["reproduce", str(run)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "has no result yet and no row in" in sentence
    assert "--board" in sentence
    assert main(["reproduce", str(run), "--board", str(extracted / "leaderboard"), "--out", "again"]) == 0


def test_an_open_run_is_no_archive(here, capsys):
    (folder,) = here.glob("runs/kd-*")
    (folder / "result.json").unlink()
    (folder / "spec.json").write_text("{}")
    assert main(["reproduce", f"runs/{folder.name}"]) == 2
    assert "has no result yet" in capsys.readouterr().err
    (folder / "config.gin").write_text("Machine.threads = 7\n")
    assert main(["reproduce", "kd-digits"]) == 0, "by its row"


def test_other_weights_are_reported_with_what_changed(here, capsys, change):
    (folder,) = here.glob("runs/kd-*")
    last = RunFolder(folder.parent, folder.name).result()["accuracy.last"]
    change(folder, weights__sha256="0" * 64, accuracy__last=last + 1.5, provenance__torch="1.0")
    assert main(["reproduce", str(folder)]) == 1
    out = capsys.readouterr().out
    assert (
        "Not bit-identical: the weights differ; accuracy differs by 1.50 points; the environment differs as listed above"
        in out
    )
    assert "-1.50 points" in out
    assert "provenance.torch" in out
    assert "provenance.python" not in out
    assert not outcome(here / "runs" / "reproduced")["identical"]


METHOD = '''
"""Cross-entropy with a weight."""
from kdbench.method import Method


class MINE(Method):
    """Args: weight: of it."""

    weight: float

    def losses(self, batch):
        return {"ce": self.weight * self.cross_entropy(self.student(batch.images), batch.labels)}
'''


def forget():
    """What was read of gin and method files."""
    from kdbench.config import bindings

    for cached in (places.roots, places.members, places.sources, signature.of_method, signature.parse):
        cached.cache_clear()
    bindings._method_file.cache_clear()


@pytest.fixture
def mine(tmp_path, monkeypatch, short):
    """A plug-in method, a finished run of it, and its leaderboard; the folder of the plug-in."""
    root = tmp_path / "plugin"
    (root / "methods").mkdir(parents=True)
    (root / "gin" / "method").mkdir(parents=True)
    (root / "methods" / "mine.py").write_text(METHOD)
    (root / "gin" / "method" / "mine.gin").write_text("MINE.weight = 0.5\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["run", "methods=mine", *short, "--plugins", str(root)]) == 0
    assert main(["leaderboard"]) == 0
    yield root
    forget()


def test_after_its_gin_file_has_changed_the_stored_run_is_trained_and_the_change_reported(mine, tmp_path, capsys):
    (mine / "gin" / "method" / "mine.gin").write_text("MINE.weight = 0.25\n")
    forget()
    capsys.readouterr()
    assert main(["reproduce", "mine"]) == 0
    error = capsys.readouterr().err
    assert "now resolves to another run" in error
    assert "MINE.weight was 0.5 and is now 0.25" in error
    assert len(outcome(tmp_path / "runs" / "reproduced", "mine")["remarks"]) == 2

    for path in tmp_path.glob("runs/mine-*/*"):
        if path.name not in ("config.gin", "plugin"):  # as the archive of the leaderboard has it
            path.unlink()
    assert main(["reproduce", "mine", "--out", "again"]) == 0
    assert outcome(tmp_path / "again", "mine")["identical"]
    assert "MINE.weight was 0.5 and is now 0.25" in capsys.readouterr().err

    shutil.rmtree(tmp_path / "runs")
    assert main(["reproduce", "mine"]) == 1
    error = capsys.readouterr().err
    assert "without its folder the values it ran with are unknown" in error
    assert "the method's own values, or its teacher, have changed" in error
    assert not (tmp_path / "runs").exists()


def test_what_an_older_kdbench_did_not_have_is_as_it_is_now(mine, tmp_path, capsys):
    (config,) = tmp_path.glob("runs/mine-*/config.gin")
    old = [line for line in config.read_text().splitlines() if not line.startswith(("Measures.", "Machine.log"))]
    config.write_text("\n".join(old) + "\n")
    (mine / "gin" / "method" / "mine.gin").write_text("MINE.weight = 0.25\n")
    forget()
    assert main(["reproduce", "mine"]) == 0
    (again,) = tmp_path.glob("runs/reproduced/mine-*/config.gin")
    assert "MINE.weight = 0.5" in again.read_text()
    assert "Measures.images" in again.read_text()


def test_an_edited_configuration_is_reported_and_not_trained(mine, tmp_path, capsys):
    (config,) = tmp_path.glob("runs/mine-*/config.gin")
    config.write_text(config.read_text().replace("MINE.weight = 0.5", "MINE.weight = 0.75"))
    assert main(["reproduce", "mine"]) == 0
    error = capsys.readouterr().err
    assert "was edited after the run" in error
    assert "MINE.weight was 0.75 and is now 0.5" in error


def test_one_that_fails_here_is_not_reproduced(mine, tmp_path, capsys, monkeypatch):
    def broken(self, batch):
        raise OSError("boom")

    monkeypatch.setattr(sys.modules["kdbench.methods.mine"].MINE, "losses", broken)
    assert main(["reproduce", "mine"]) == 1
    assert "Not reproduced: the run failed (OSError: boom)." in capsys.readouterr().out
    assert outcome(tmp_path / "runs" / "reproduced", "mine")["status"] == "failed"


def test_a_gpu_that_is_not_there_is_reported(mine, tmp_path, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    (config,) = tmp_path.glob("runs/mine-*/config.gin")
    config.write_text(config.read_text().replace("Machine.device = 'auto'", "Machine.device = 'cuda:1'"))
    assert main(["reproduce", "mine"]) == 0, "it was a CPU in truth"
    assert "the run was trained with Machine.device=cuda:1" in capsys.readouterr().err


def test_a_run_whose_command_no_longer_resolves(mine, capsys):
    shutil.rmtree(mine)
    (mine / "gin").mkdir(parents=True)
    forget()
    assert main(["reproduce", "mine"]) == 2
    error = capsys.readouterr().err
    assert "cannot be resolved here" in error
    assert "unknown method 'mine'" in error


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "reproduce takes one run, as in kdbench reproduce RUN; 0 given"),
        (["a", "b"], "2 given"),
        (["kd-digitz-resnet8"], "did you mean 'kd-digits-resnet8-s0-"),
        (["./nowhere"], "'./nowhere' is not a run folder"),
        (["kd-digits", "--out", "runs"], "is the folder of the stored runs"),
        (["kd-digits", "--out", "elsewhere"], "was not created by kdbench reproduce; choose another folder"),
        (["half"], "the run 'half-digits-s0-1' has no result yet"),
        (["lost"], "the run 'lost-digits-s0-1' has failed (boom)"),
        (["odd"], "the run 'odd-digits-s0-1' does not record the command that produced it"),
        (["kd-digits", "--bord", "x"], "did you mean '--board'?"),
    ],
)
def test_wrong_input_is_answered_before_anything_starts(here, capsys, words, sentence):
    shutil.copytree(here / "runs", here / "elsewhere")
    made = {"half": None, "lost": {"status": "failed", "error": "boom"}, "odd": {"status": "finished"}}
    for name, result in made.items():
        folder = here / "runs" / f"{name}-digits-s0-1"
        folder.mkdir()
        (folder / "config.gin").write_text("Train.epochs = 1\n")
        if result:
            (folder / "result.json").write_text(json.dumps(result))
    before = sorted(here.rglob("*"))
    capsys.readouterr()
    assert main(["reproduce", *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert sorted(here.rglob("*")) == before


def test_a_result_and_a_row_compare_alike():
    now = {
        "status": "finished",
        "weights.sha256": "a",
        "accuracy.last": 61.5,
        "provenance.clean": True,
        "provenance.x": 3,
    }
    row = {"weights.sha256": "a", "accuracy.last": "61.5", "provenance.clean": "True", "provenance.x": "3"}
    same = compare(row, now)
    assert same == compare(now, now)
    assert same.summary == "Reproduced: the weights are bit-identical."
    other = compare({**row, "provenance.x": "4"}, now)
    assert other.summary == "Reproduced: the weights are bit-identical, in a different environment."
    assert other.environment["provenance.x"] == {"stored": "4", "here": "3"}
    assert not compare({}, {}).identical
    assert compare({"weights.sha256": "a"}, {**now, "weights.sha256": "b"}).summary.startswith("Not bit-identical")


def test_the_functions_return_data_and_what_is_trained_has_the_stored_configuration(here, capsys, teacher):
    (stored,) = here.glob("runs/kd-*/config.gin")
    before = sorted(here.rglob("*"))
    reproduction = prepare("kd-digits", here / "runs", out=here / "again")
    assert sorted(here.rglob("*")) == before, "nothing is written yet"
    assert (reproduction.run.id, reproduction.spec.id) == (stored.parent.name, stored.parent.name)
    assert (reproduction.teachers, reproduction.teacher_folders) == ((), (teacher(here / "runs"),))
    assert reproduction.changes == ()
    result = carry_out(reproduction)
    assert result.identical
    assert capsys.readouterr().out == ""
    written = (here / "again" / stored.parent.name / "config.gin").read_text()
    headings = ("#", "\n")
    bindings = [line for line in stored.read_text().splitlines(True) if not line.startswith(headings)]
    assert sorted(line for line in written.splitlines(True) if not line.startswith(headings)) == sorted(bindings)
    assert written.splitlines()[0] == stored.read_text().splitlines()[0]


def test_of_a_chain_what_is_not_what_it_was_is_trained_again_and_the_rest_copied(tmp_path, teacher, short):
    plugin, runs = Path(__file__).parents[1] / "teaching", tmp_path / "runs"
    words = ["methods=dense", *(word for word in short if not word.startswith("teacher=")), "teacher=resnet20"]
    assert main(["run", *words, "Machine.threads=1", "--runs", str(runs), "--plugins", str(plugin)]) == 0
    (student,) = runs.glob("dense-digits-resnet8-*")
    (assistant,) = runs.glob("dense-digits-resnet14-*")
    (assistant / "checkpoint.pt").write_bytes(b"other")
    reproduction = prepare(student.name, runs, out=tmp_path / "again", board=tmp_path)
    assert [spec.id for spec in reproduction.teachers] == [assistant.name]
    assert [folder.name for folder in reproduction.teacher_folders] == [teacher(runs).name]
    assert carry_out(reproduction).identical


def test_a_run_of_ones_own_method_comes_out_again_from_the_archive_alone(tmp_path, monkeypatch, capsys, short):
    root = tmp_path / "mykd"
    for name, text in {
        "methods/halved.py": (
            "from kdbench.method import Method\n\n\nclass Halved(Method):\n    weight: float\n\n    def losses(self, batch):\n"
            "        return {'ce': self.weight * self.cross_entropy(self.student(batch.images), batch.labels)}\n"
        ),
        "gin/method/halved.gin": "Halved.weight = 0.5\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["run", "methods=halved", *short, "Machine.threads=1", "--plugins", str(root)]) == 0
    (stored,) = (tmp_path / "runs").glob("halved-*")
    command = RunFolder(stored.parent, stored.name).result()["provenance.command"]
    assert command.endswith(" --plugins DIR")
    assert main(["leaderboard"]) == main(["export", "--to", "archive.zip"]) == 0
    shutil.rmtree(root)
    shutil.unpack_archive("archive.zip", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("KDBENCH_PLUGINS", "")
    places.add_plugins([])
    capsys.readouterr()

    assert main(["reproduce", "halved", "--runs", "runs"]) == 2
    plugin = tmp_path / "elsewhere" / "runs" / stored.name / "plugin"
    assert f"which are stored with it: pass --plugins {plugin}" in capsys.readouterr().err
    assert main(["reproduce", "halved", "--runs", "runs", "--plugins", str(plugin)]) == 0
    assert "Reproduced: the weights are bit-identical" in capsys.readouterr().out


def test_a_row_records_the_settings_that_change_bits_and_names_those_that_differ(tmp_path, monkeypatch, capsys, short):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    words = [word for word in short if not word.startswith("teacher=")]
    assert main(["run", "methods=ce", *words, "Machine.threads=1", "Machine.deterministic=True"]) == 0
    assert main(["leaderboard"]) == 0
    shutil.rmtree("runs")
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    capsys.readouterr()
    assert main(["reproduce", "ce"]) == 0
    out = capsys.readouterr().out
    (config,) = tmp_path.glob("runs/reproduced/ce-*/config.gin")
    assert "Machine.deterministic = True" in config.read_text()
    assert re.search(r"provenance.variables +\S+ +.*MKL_CBWR=COMPATIBLE", out)
    assert "provenance.deterministic" not in out
    assert "bit-identical, in a different environment" in out


def test_a_reproduction_whose_folder_is_removed_says_what_is_lost(here, monkeypatch):
    reproduction = prepare("kd-digits", here / "runs", out=here / "again")
    monkeypatch.setattr(local, "inline", lambda specs, out, *_, **__: shutil.rmtree(out))
    with pytest.raises(RunError, match=f"is lost: the folder was removed from {here / 'again'} meanwhile"):
        carry_out(reproduction)
