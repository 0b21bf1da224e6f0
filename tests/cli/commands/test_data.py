"""`kdbench data`: what it prints, and its exit status."""

import pytest
from PIL import Image

from kdbench.cli.main import main


@pytest.fixture
def folder(tmp_path, cats_and_dogs):
    return cats_and_dogs(tmp_path / "data", 3, 3, lambda number: Image.new("RGB", (10, 12), (51 * number,) * 3))


def test_statistics(folder, capsys):
    assert main(["data", "stats", "imagefolder", "--data", str(folder), "Dataset.size=8"]) == 0
    assert capsys.readouterr().out == (
        "images    6 for training, 6 for the test\n"
        "classes   2, of 3 to 3 training images each\n"
        "sizes     10x12\n"
        "Dataset.mean = (0.2, 0.2, 0.2)\n"
        "Dataset.std = (0.1633, 0.1633, 0.1633)\n"
    )


def test_a_whole_dataset(folder, capsys):
    assert main(["data", "check", "imagefolder", "--data", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("12 images of 2 classes can be read; data.content_sha256 ")
    assert main(["data", "check", "digits"]) == 0
    assert capsys.readouterr().out.startswith("1797 images of 10 classes can be read; data.sha256 ")


def test_a_broken_image(folder, capsys):
    (folder / "train" / "cat" / "1.png").write_bytes(b"no")
    assert main(["data", "check", "imagefolder", "--data", str(folder)]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{folder}/train/cat/1.png cannot be read as an image: its 2 bytes are none of PNG")
    assert last.startswith("1 image of 12 cannot be read; mend or remove them, or pass Dataset.skip_broken=True")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data", "chek", "digits"], "unknown kind 'chek'; did you mean 'check'?"),
        (["data", "stats", "digit"], "unknown dataset 'digit'; did you mean 'digits'?"),
        (["data", "stats", "imagefolder"], "imagefolder needs a data folder"),
        (
            ["data", "stats", "digits", "Train.epochs=1"],
            "only settings of the dataset (Dataset.KEY=VALUE) can be given here, not Train.epochs",
        ),
        (["data", "stats"], "the following arguments are required: DATASET"),
    ],
)
def test_bad_input(words, sentence, capsys, monkeypatch):
    monkeypatch.delenv("KDBENCH_DATA", raising=False)
    assert main(words) == 2
    assert sentence in capsys.readouterr().err


def test_a_check_is_of_all_files_even_if_broken_ones_may_be_left_out(folder, capsys):
    (folder / "train" / "cat" / "1.png").write_bytes(b"no")
    assert main(["data", "check", "imagefolder", "--data", str(folder), "Dataset.skip_broken=True"]) == 1
    assert "1 image of 12 cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["imagefolder", "Dataset.size=0"], "Dataset.size must be at least 1 pixel here"),
        (["imagefolder", "Dataset.size=-1"], "Dataset.size must be at least 0"),
        (["imagefolder", "Dataset.size=8,16"], "takes one value of Dataset.size"),
        (["imagefolder", "Dataset.boxes=True"], "'imagefolder' does not take Dataset.boxes; those that do: cub200"),
    ],
)
def test_settings_that_a_dataset_does_not_take(words, sentence, folder, capsys):
    assert main(["data", "stats", *words, "--data", str(folder)]) == 2
    assert sentence in capsys.readouterr().err
