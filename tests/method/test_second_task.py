"""The second task: the superclasses of CIFAR-100, for every method."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from kdbench.config import places
from kdbench.data.readers import superclasses
from kdbench.errors import RunError, UserError
from kdbench.method.second_task import SecondHead, attach, with_second_task
from kdbench.plan import expand, request
from kdbench.run import load
from kdbench.run.execute import run

METHODS = [name for name, path in sorted(places.sources().items()) if "def deployed" not in path.read_text()]
"""Those whose student classifies; others refuse a second task."""
WORDS = [
    "dataset=cifar100", "student=resnet8", "teacher=resnet8", "recipe=smoke", "Train.warmup=0", "Train.batch_size=40",
    "Split.validation=0", "Machine.threads=1", "Measures.corruptions=False", "Measures.images=5",
]  # fmt: skip


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """Class folders with one image for training and one for the test in each class."""
    root, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for part in ("train", "test"):
        for name in superclasses.FINE:
            (root / "cifar100" / part / name).mkdir(parents=True)
            pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "cifar100" / part / name / "0.png")
    return root


@pytest.mark.parametrize("name", [name for name in METHODS if name != "simkd"])
def test_every_method_trains_it(name, make, batch):
    method = make(name)
    attach(method, [0, 1, 1, 0])
    one = batch(method)
    before = method.losses(one) if name == "ce" else None
    terms = with_second_task(method.losses, method, 0.5)(one)
    assert terms["second_task"].isfinite()
    gradients = torch.autograd.grad(
        terms["second_task"], [method.second_head.fc.weight, method.student.fc.weight], allow_unused=True
    )
    assert gradients[0].abs().sum() > 0
    assert gradients[1] is None, "the first classifier has no part in it"
    if before:
        pooled = method.student(one.images, features=True).pooled
        expected = 0.5 * F.cross_entropy(method.second_head(pooled), torch.tensor([0, 1, 1, 0])[one.labels])
        assert terms["second_task"].item() == pytest.approx(expected.item(), rel=1e-5)
        assert terms["ce"].item() == pytest.approx(before["ce"].item(), rel=1e-5)


def test_of_rotated_copies_in_one_pass_the_first_are_taken(make, batch):
    method = make("sla_sd").eval()
    attach(method, [0, 1, 1, 0])
    one = batch(method)
    term = with_second_task(method.losses, method, 1.0)(one)["second_task"]
    pooled = method.student(one.images, features=True).pooled
    expected = F.cross_entropy(method.second_head(pooled), method.second_head.targets(one.labels))
    assert term.item() == pytest.approx(expected.item(), rel=1e-5)


def test_its_head_computes_in_float32_under_autocast(make, batch):
    method = make("ce")
    attach(method, [0, 1, 1, 0])
    one = batch(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term = with_second_task(method.losses, method, 1.0)(one)["second_task"]
        pooled = method.student(one.images, features=True).pooled
    expected = F.cross_entropy(method.second_head(pooled), method.second_head.targets(one.labels))
    assert term.dtype == torch.float32
    assert term.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_compiled_student_is_refused():
    with pytest.raises(UserError, match=r"SecondTask.weight does not work with Machine.compile"):
        expand.plan(request.parse(["methods=ce", *WORDS, "SecondTask.weight=1", "Machine.compile=True"]))


def test_mixed_labels_have_mixed_targets():
    head = SecondHead(3, [0, 1, 1])
    shares = torch.tensor([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    assert torch.allclose(head.targets(shares), torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    assert head.targets(torch.tensor([2, 0])).tolist() == [1, 0]


def test_a_student_that_classifies_nothing_is_named(make, batch):
    method = make("ce")
    attach(method, [0, 1, 1, 0])
    with pytest.raises(RunError, match="needs a student that classifies each image of a batch, which CE does not do"):
        with_second_task(lambda _: {}, method, 1.0)(batch(method))


def test_runs_report_both_tasks(cifar, tmp_path):
    teacher, student = expand.plan(request.parse(["methods=kd", *WORDS, "SecondTask.weight=0.5"]))
    (_, plain) = expand.plan(request.parse(["methods=kd", *WORDS]))
    assert student.protocol != plain.protocol
    results = [run(spec, tmp_path, cifar) for spec in (teacher, student)]
    assert [each["status"] for each in results] == ["finished"] * 2, results[-1].get("error")
    assert all(0 <= each["accuracy.second_task"] <= 100 for each in results)
    method = load.method(tmp_path / student.id)
    assert method.second_head.label_of.tolist() == superclasses.coarse_labels(superclasses.FINE)
    images = torch.zeros(2, 3, 32, 32)
    assert method.second_head(method.student(images, features=True).pooled).shape == (2, 20)
    assert "accuracy.second_task" not in run(plain, tmp_path / "plain", cifar)


@pytest.mark.parametrize(
    "words", [["dataset=digits"], ["dataset=cifar10"], ["dataset=cifar100", "Dataset.labels=coarse"]]
)
def test_other_images_have_no_second_task(words):
    with pytest.raises(UserError, match=r"SecondTask.weight needs the fine classes of cifar100"):
        expand.plan(request.parse(["methods=ce", *words, "SecondTask.weight=1"]))
