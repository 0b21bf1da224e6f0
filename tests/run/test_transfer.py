"""Features of a finished run on other images: their size and channels, the test set, and a run that is measured."""

import json

import pytest
import torch

from kdbench.cli.main import main
from kdbench.config import places
from kdbench.data.task import SealedTest
from kdbench.errors import RunError, UserError
from kdbench.run import load, transfer
from kdbench.store.folder import RunFolder

CPU = torch.device("cpu")


def test_images_of_the_right_shape_are_left_as_they_are():
    images = torch.rand(2, 3, 8, 8)
    assert transfer.fitted(images, (3, 8, 8)) is images


def test_a_grey_image_is_repeated_and_a_coloured_one_becomes_grey():
    grey = torch.rand(2, 1, 8, 8)
    three = transfer.fitted(grey, (3, 8, 8))
    assert torch.equal(three, grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(transfer.fitted(three, (1, 8, 8)), grey)
    red = torch.zeros(1, 3, 2, 2)
    red[:, 0] = 1
    torch.testing.assert_close(transfer.fitted(red, (1, 2, 2)), torch.full((1, 1, 2, 2), 0.299))
    with pytest.raises(RunError, match="its network takes 2 channels, and the images have 3"):
        transfer.fitted(red, (2, 2, 2))


def test_a_change_of_size_keeps_constants_and_means():
    flat = torch.full((1, 3, 16, 16), 0.25)
    for size in (8, 32):
        torch.testing.assert_close(transfer.fitted(flat, (3, size, size)), torch.full((1, 3, size, size), 0.25))
    checks = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    small = transfer.fitted(checks.float().expand(1, 1, -1, -1), (1, 8, 8))
    assert (small - 0.5).abs().max() < 0.02, "antialiased: no pattern is left"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of runs of two methods on digits, a few steps each."""
    runs = tmp_path_factory.mktemp("runs")
    words = [
        "Train.epochs=2",
        "Train.warmup=0",
        "Measures.corruptions=False",
        "Measures.noise=()",
        "Measures.images=10",
    ]
    assert main(["run", "methods=ce,kd", "dataset=digits", "teacher=resnet8", *words, "--runs", str(runs)]) == 0
    return runs


def first(runs, method):
    return RunFolder(
        runs, next(path.name for path in runs.iterdir() if path.name.startswith(f"{method}-digits-resnet8-s0-"))
    )


def test_features_are_those_of_the_deployed_network(finished, test_set):
    folder = first(finished, "kd")
    network = transfer.extractor(folder, CPU)
    task = transfer.tasks.load(transfer.dataset("digits", None), transfer.VALIDATION, None, CPU)
    task.test.training_is_over()
    images, _ = test_set(folder.path)
    expected = load.deployed(folder.path)(images, features=True).pooled
    torch.testing.assert_close(network(task.test.read()), expected, atol=1e-4, rtol=1e-4)


def test_the_test_images_are_read_once_and_when_the_penalty_is_chosen(finished, monkeypatch):
    events = []
    choose, read = transfer.probe.choose_penalty, SealedTest.read
    monkeypatch.setattr(transfer.probe, "choose_penalty", lambda *a: events.append("chosen") or choose(*a))
    monkeypatch.setattr(SealedTest, "read", lambda self: events.append("test") or read(self))
    transfer.measure(transfer.extractor(first(finished, "ce"), CPU), transfer.dataset("digits", None), None, CPU)
    assert events == ["chosen", "test"]


def test_a_run_is_measured_once_and_shown_in_tables(finished, capsys, tmp_path):
    words = ["transfer", "all", "dataset=digits", "--runs", str(finished)]
    assert main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3, "the teacher too"
    assert "digits  linear " in printed[0]
    files = [first(finished, method) / "transfer.json" for method in ("ce", "kd")]
    entries = [json.loads(file.read_text())["datasets"]["digits"] for file in files]
    assert all(entry["linear"] > 15 and entry["knn"] > 15 and entry["test_images"] == 64 for entry in entries)
    before = [file.stat().st_mtime_ns for file in files]
    assert main([*words, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines() == printed
    assert [file.stat().st_mtime_ns for file in files] == before
    assert main([*words, "--again"]) == 0
    assert capsys.readouterr().out.splitlines() == printed, "the same figures"
    columns = "columns=transfer.digits.linear,delta.transfer.digits.knn"
    assert main(["leaderboard", columns, "--runs", str(finished), "--out", str(tmp_path)]) == 0
    assert f"{entries[0]['linear']:.2f}" in (tmp_path / "README.md").read_text()


def test_weights_that_are_not_those_of_the_result_are_not_measured(finished, capsys, tmp_path):
    folder = first(finished, "ce")
    copy = RunFolder(tmp_path, folder.path.name)
    copy.path.mkdir()
    for name in ("checkpoint.pt", "config.gin", "spec.json"):
        (copy / name).write_bytes((folder / name).read_bytes())
    (copy / "result.json").write_text(json.dumps({**folder.result(), "weights.sha256": "0" * 64}))
    assert main(["transfer", "all", "dataset=digits", "--runs", str(tmp_path)]) == 1
    assert "do not match the recorded checksum" in capsys.readouterr().err
    assert not (copy / "transfer.json").exists()


def test_a_dataset_with_other_values_than_its_images_is_refused(tmp_path, own_plugins):
    file = tmp_path / "gin" / "dataset" / "coloured.gin"
    file.parent.mkdir(parents=True)
    file.write_text("include 'dataset/digits.gin'\nDataset.mean = (0.0, 0.0, 0.0)\nDataset.std = (1.0, 1.0, 1.0)\n")
    places.add_plugins([str(tmp_path)])
    with pytest.raises(UserError, match="images of 'digits' have 1 channel"):
        transfer.dataset("coloured", None)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["all"], "specify the dataset to transfer to"),
        (["dataset=digits"], "specify the runs to measure"),
        (["all", "dataset=digit"], "unknown dataset 'digit'; did you mean 'digits'?"),
        (["all", "dataset=cifar100"], "cifar100 needs a data folder"),
        (["methods=rkd", "dataset=digits"], "no finished run to measure: no run matches"),
        (["all", "dataset=digits", "--device", "nowhere"], "the device 'nowhere' is not available here"),
        (["all", "dataset=digits", "SGD.lr=1"], "unknown selection 'SGD.lr'"),
    ],
)
def test_invalid_words_are_one_sentence(finished, monkeypatch, capsys, words, sentence):
    monkeypatch.delenv("KDBENCH_DATA", raising=False)
    assert main(["transfer", *words, "--runs", str(finished)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_run_that_another_process_has_is_left_out(finished, capsys):
    folder = first(finished, "ce")
    (folder / "transfer.json").unlink(missing_ok=True)
    from kdbench.store import lease

    with lease.acquire(folder.path):
        assert main(["transfer", folder.path.name, "dataset=digits", "--runs", str(finished)]) == 3
    assert "was left out: it is being done by" in capsys.readouterr().err
