import pytest
import torch

from kdbench.config.settings import Dataset, Split
from kdbench.data import task as task_
from kdbench.errors import RunError

DIGITS = Dataset(source="digits", mean=(0.3,), std=(0.35,), mirrored=False)
CPU = torch.device("cpu")


def load(share=0.2):
    return task_.load(DIGITS, Split(validation=share, seed=0), None, CPU)


def test_the_test_set_is_sealed_until_training_is_over_and_read_once():
    task = load()
    with pytest.raises(RunError, match="was read before training finished"):
        task.test.read()
    task.test.training_is_over()
    assert len(task.test.read()) > 1000
    with pytest.raises(RunError, match="was read twice"):
        task.test.read()


def test_the_test_set_chooses_nothing_unless_it_was_told_to():
    with pytest.raises(RunError, match=r"model selection on the test set needs Selection.on_test=True"):
        load().test.choose()
    task = task_.load(DIGITS, Split(validation=0.0, seed=0), None, CPU, test_may_choose=True)
    assert len(task.test.choose()) == len(task.test.choose())


def test_validation_comes_out_of_the_training_images():
    whole, cut = load(0.0), load(0.2)
    assert len(whole.validation) == 0
    assert len(cut.train) + len(cut.validation) == len(whole.train)
    assert len(cut.validation) == round(0.2 * len(whole.train))
    assert cut.digest == whole.digest
    assert cut.image_shape == (1, 8, 8)


def test_a_normalisation_for_another_number_of_channels_is_refused():
    colour = Dataset(source="digits", mean=(0.3,) * 3, std=(0.35,) * 3, mirrored=False)
    with pytest.raises(RunError, match="3 values but images of 'digits' have 1 channel"):
        task_.load(colour, Split(validation=0.0, seed=0), None, CPU)
