"""A method that draws from the global generators of torch, numpy and Python is repeated, and resumed, in the same bits."""

import random

import numpy as np
import pytest
import torch

from kdbench.config import places
from kdbench.plan import expand, request
from kdbench.run.caller import Caller
from kdbench.run.execute import run, validate
from kdbench.run.resume import Stopped

METHOD = '''
"""Mixup whose weight comes from numpy's global generator, whose partners come from Python's, and whose noise comes from torch's."""
import random
import numpy as np
import torch
from kdbench.method import Method

class Drawing(Method):
    """Args: alpha: of the beta distribution."""

    alpha: float

    def sample(self, anchors, streams):
        np.random.random()  # also when the harness only counts operations
        return anchors

    def losses(self, batch):
        share = float(np.random.beta(self.alpha, self.alpha))
        partner = torch.tensor(random.sample(range(len(batch.labels)), len(batch.labels)))
        noise = random.gauss(0, 0.1) + 0.1 * np.random.standard_normal() + 0.1 * torch.randn(())
        logits = self.student(share * batch.images + (1 - share) * batch.images[partner] + noise)
        first, second = (self.cross_entropy(logits, labels) for labels in (batch.labels, batch.labels[partner]))
        return {"ce": share * first + (1 - share) * second}

    def exits(self, images):
        return {"random": self.student(images) * np.random.standard_normal() + random.random() + torch.rand(())}
'''


@pytest.fixture
def spec(own_plugins, tmp_path):
    for name, text in {"methods/drawing.py": METHOD, "gin/method/drawing.gin": "Drawing.alpha = 1.0\n"}.items():
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).write_text(text)
    places.add_plugins([str(tmp_path / "own")])
    words = [
        "methods=drawing",
        "dataset=digits",
        "student=resnet8",
        "Train.epochs=2",
        "Train.warmup=0",
        "Train.batch_size=24",
    ]
    words += [
        "Split.validation=0.2",
        "Machine.threads=1",
        "Machine.checkpoint_every=0",
        "Measures.corruptions=False",
        "Measures.images=10",
    ]
    (spec,) = expand.plan(request.parse(words))
    return spec


def seeded(number):
    torch.manual_seed(number), np.random.seed(number), random.seed(number)  # noqa: NPY002


def drawn():
    return torch.rand(3).tolist(), np.random.random(3).tolist(), random.random()  # noqa: NPY002


def same(first, second):
    free = ("seconds.", "convergence.seconds.", "cost.peak", "cost.images", "provenance.")
    return {k: v for k, v in first.items() if not k.startswith(free)} == {
        k: v for k, v in second.items() if not k.startswith(free)
    }


def test_the_same_command_twice_gives_the_same_bits_and_leaves_the_users_generators_alone(spec, tmp_path):
    seeded(1)
    expected = drawn()
    seeded(1)
    first = run(spec, tmp_path / "first", None)
    assert first["status"] == "finished", first["error"]
    assert drawn() == expected
    seeded(2)
    second = run(spec, tmp_path / "second", None)
    assert same(first, second)
    seeded(3)
    trial = validate(spec, tmp_path, None)
    assert trial["accuracy.val"] == first["accuracy.val"]


def test_interrupted_after_every_step_it_ends_in_the_same_bits(spec, tmp_path):
    undisturbed, sessions = run(spec, tmp_path / "undisturbed", None), 1
    while True:
        seeded(sessions)
        try:
            result = run(spec, tmp_path / "stopped", None, Caller(stop=lambda: True))
            break
        except Stopped:
            sessions += 1
    assert sessions == result["provenance.sessions"] >= 6
    assert same(result, undisturbed)
