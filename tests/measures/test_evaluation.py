"""What a measure of a plug-in returns is checked against what it declares."""

import re

import pytest
import torch

from kdbench.config import places
from kdbench.config.settings import Dataset, Measures
from kdbench.data.images import Images
from kdbench.errors import RunError
from kdbench.measures.evaluation import OWN, Evaluation, measure

pytestmark = pytest.mark.usefixtures("own_plugins")


@pytest.fixture
def evaluation():
    """Five grey images, each rightly classified, without a teacher and without corruptions."""
    images = Images(torch.zeros(5, 8, 8, 1, dtype=torch.uint8), torch.arange(5))
    dataset, measures = Dataset("x", (0.0,), (1.0,), False), Measures((), False, 0, (50.0,))
    return Evaluation(torch.nn.Identity(), {OWN: 9.0 * torch.eye(5)}, None, images, [], 5, dataset, measures)


def plugin(root, body):
    (root / "measures").mkdir()
    (root / "measures" / "mine.py").write_text(
        f"MEASURES = {{'mine': ('f', {{'keys': {{'mine.x': ('float', 'nats', 'a number')}}}})}}\n"
        f"def f(evaluation):\n    {body}\n"
    )
    places.add_plugins([str(root)])


def test_values_of_kdbenchs_own_measures(evaluation):
    values = measure(evaluation)
    assert values["accuracy.top5"] == 100
    assert values["teacher.agreement"] is None
    assert values["measures.images"] == 5
    assert values["robustness.corruptions"] is None
    assert {key for key in values if key.startswith("convergence.")} == {
        "convergence.auc", "convergence.highest", "convergence.images.50", "convergence.seconds.50",
    }  # fmt: skip


def test_a_measure_of_a_plugin_adds_its_values(evaluation, tmp_path):
    plugin(tmp_path, "return {'mine.x': evaluation.logits['own'].max().item()}")
    assert measure(evaluation)["mine.x"] == 9


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return 3", "must return a dict, not int"),
        ("return {'mine.y': 3}", "returns 'mine.y', which MEASURES does not declare"),
        ("return {'accuracy.last': 100}", "returns 'accuracy.last', which MEASURES does not declare"),
        ("return {'mine.x': evaluation.logits['own'].max()}", "returns a Tensor as 'mine.x'"),
    ],
)
def test_a_wrong_value_is_named_with_the_file(evaluation, tmp_path, body, sentence):
    plugin(tmp_path, body)
    with pytest.raises(RunError, match=re.escape(sentence)) as error:
        measure(evaluation)
    assert str(tmp_path / "measures" / "mine.py") in str(error.value)
