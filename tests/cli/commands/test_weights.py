"""`kdbench weights` as a user meets it."""

import pytest

import kdbench
from kdbench.cli.main import main
from kdbench.run import student_file

pytest.importorskip("safetensors")
pytestmark = pytest.mark.usefixtures("own_plugins")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One finished run of ce on digits, and the beginning of another."""
    folder = tmp_path_factory.mktemp("runs")
    little = {"Train.epochs": 1, "Train.warmup": 0, "Measures.corruptions": False, "Measures.noise": ()}
    kdbench.plan("methods=ce dataset=digits student=resnet8", runs=folder, **little).run()
    (folder / "kd-digits-resnet8-s0-0123456789").mkdir()
    return folder


@pytest.fixture
def weights(runs, monkeypatch, tmp_path, capsys):
    """Calls the command in an empty folder; returns its exit status and what it printed."""
    monkeypatch.setenv("KDBENCH_RUNS", str(runs))
    monkeypatch.chdir(tmp_path)

    def call(*words):
        status = main(["weights", *words])
        streams = capsys.readouterr()
        return status, streams.out + streams.err

    return call


def test_a_prefix_or_a_folder_names_the_run(weights, runs, tmp_path):
    (folder,) = runs.glob("ce-*")
    status, printed = weights("ce-digits", "--to", "a/student.safetensors")
    assert status == 0
    assert printed.startswith(f"wrote {tmp_path / 'a/student.safetensors'}; largest difference from torch's outputs")
    assert weights(str(folder), "--to", "b.safetensors")[0] == 0
    assert (tmp_path / "a/student.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert student_file.read(tmp_path / "b.safetensors").facts.run == folder.name


def test_a_file_is_overwritten_with_force_only(weights, tmp_path):
    (tmp_path / "s.safetensors").write_text("mine")
    status, printed = weights("ce-digits", "--to", "s.safetensors")
    assert (status, printed) == (2, f"kdbench: {tmp_path / 's.safetensors'} exists; pass --force to overwrite it\n")
    assert (tmp_path / "s.safetensors").read_text() == "mine"
    assert weights("ce-digits", "--to", "s.safetensors", "--force")[0] == 0
    assert student_file.read(tmp_path / "s.safetensors")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--to", "s.onnx"], "weights takes one run, as in kdbench weights RUN --to student.safetensors; 0 given"),
        (["ce-digits"], "specify the file to write"),
        (["ce-digits", "--to", "s.onx"], "unknown format '.onx'; did you mean '.onnx'?"),
        (
            ["kd-digits", "--to", "s.onnx"],
            "the run 'kd-digits-resnet8-s0-0123456789' has not finished, so it has no weights",
        ),
        (["ce-cifar", "--to", "s.onnx"], "has an id that starts with 'ce-cifar'; did you mean 'ce-digits-"),
        (["./nowhere", "--to", "s.onnx"], "'./nowhere' is not a run folder (it has no config.gin)"),
    ],
)
def test_wrong_input_is_a_sentence(weights, tmp_path, words, sentence):
    status, printed = weights(*words)
    assert status == 2
    assert sentence in printed
    assert printed.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_run_learns_from_the_file_of_another(weights, runs, tmp_path):
    weights("ce-digits", "--to", "s.safetensors")
    little = ["Train.epochs=1", "Train.warmup=0", "Measures.corruptions=False", "Measures.noise=()"]
    words = ["methods=kd", "dataset=digits", "student=resnet8", f"teacher={tmp_path / 's.safetensors'}", *little]
    (result,) = kdbench.plan([*words], runs=tmp_path / "others").run().to_dict("records")
    (taught_by,) = kdbench.load_results(runs).to_dict("records")
    assert result["teacher.accuracy"] == pytest.approx(taught_by["accuracy.last"], abs=0.1)
    assert result["teacher.sha256"] == taught_by["weights.sha256"]
