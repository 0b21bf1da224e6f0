"""The sums of an epoch and the lines of epochs.csv."""

import csv

import pytest
import torch

from kdbench.method import Share
from kdbench.run.loop.epochs import Epochs
from kdbench.run.loop.state import Outcome


def values(**terms):
    return {name: torch.tensor(float(value)) for name, value in terms.items()}


def epoch(epochs, number, *steps):
    for terms in steps:
        epochs.add(sum(values(**terms).values()), values(**terms))
    epochs.write(number, Outcome(images_seen=16 * number), 0.1, epochs.means(number))


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_terms_that_come_with_a_later_phase_get_a_column_and_the_lines_before_are_empty_there(tmp_path):
    path = tmp_path / "epochs.csv"
    epochs = Epochs(path, Share())
    epoch(epochs, 1, {"maps": 4}, {"maps": 2})
    epoch(epochs, 2, {"maps": 2}, {"ce": 1, "kd": 3})
    epoch(epochs, 3, {"ce": 1, "kd": 2})
    epoch(epochs, 4, {"kd": 2, "ce": 1})
    columns = ("loss", "loss.maps", "loss.ce", "loss.kd")
    assert [tuple(line[column] for column in columns) for line in lines(path)] == [
        ("3.0", "3.0", "", ""),
        ("3.0", "1.0", "0.5", "1.5"),
        ("3.0", "", "1.0", "2.0"),
        ("3.0", "", "1.0", "2.0"),
    ]
    assert all(None not in line for line in lines(path)), "no line is longer than the header"


def test_an_epoch_resumed_in_another_phase_is_that_of_one_process(tmp_path):
    one, other = (tmp_path / name / "epochs.csv" for name in ("one", "other"))
    one.parent.mkdir()
    other.parent.mkdir()
    whole = Epochs(one, Share())
    epoch(whole, 1, {"maps": 4})
    epoch(whole, 2, {"maps": 2}, {"ce": 1})
    before = Epochs(other, Share())
    epoch(before, 1, {"maps": 4})
    before.add(torch.tensor(2.0), values(maps=2))
    state = before.state()
    after = Epochs(other, Share())
    after.restore(state, torch.device("cpu"))
    epoch(after, 2, {"ce": 1})
    assert one.read_bytes() == other.read_bytes()


def test_the_terms_of_an_epoch_add_up_to_its_loss(tmp_path):
    epochs = Epochs(tmp_path / "epochs.csv", Share())
    epoch(epochs, 1, {"maps": 5}, {"maps": 3}, {"ce": 1, "kd": 2})
    (line,) = lines(tmp_path / "epochs.csv")
    assert float(line["loss"]) == pytest.approx(sum(float(line[f"loss.{term}"]) for term in ("maps", "ce", "kd")))
