"""Every method with every family of backbones, once as student and once as teacher: one step on tiny images.

Each method meets every third family, and one that reads logits alone every fourth, in a rotation; their partners differ by
method. With KDBENCH_EVERY=1 each meets every backbone, which takes an hour.
"""

import functools
import os
from pathlib import Path

import pytest
import torch
from examples import each_method

from kdbench.backbones.copies import copy_of
from kdbench.backbones.registry import build
from kdbench.config import extensions
from kdbench.errors import RunError, UserError

FAMILIES = (
    "resnet8", "resnet18", "wrn_16_1", "senet18", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2_x0_5",
    "densenet_40_12", "efficientnet_b0", "vit_tiny",
)  # fmt: skip
if os.environ.get("KDBENCH_EVERY"):
    FAMILIES = tuple(extensions.members("backbone"))
LIBRARY = ("torchvision/shufflenet_v2_x0_5", "timm/test_vit")  # timm's own network for tests takes images of 160×160
SOURCES = {path.stem: path.read_text() for path in (Path(__file__).parents[2] / "methods").glob("*.py")}
METHODS = sorted(SOURCES)
LACKS = "does not offer"
"""In the sentence of a backbone about what it cannot give, as a transformer has no map before a ReLU."""


def cases(families):
    """Names of methods with some of the families; a method that reads logits alone cannot see much of a network."""
    every = os.environ.get("KDBENCH_EVERY")
    reads_maps = {name for name, text in SOURCES.items() if "features=" in text or "stages" in text}
    return [
        (name, family)
        for place, name in enumerate(METHODS)
        for number, family in enumerate(families)
        if every or (place + number) % (3 if name in reads_maps else 4) == 0
    ]


@functools.cache
def network(name, channels=1):
    """Built once, because large networks take longer to draw than to train for a step."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(name, 4, channels)


def check_a_step(method, batch):
    """The first step has a finite loss and finite gradients by the student's weights."""
    total = sum(method.losses(batch).values())
    trained = [p for p in method.student.parameters() if p.requires_grad]
    gradients = [g for g in torch.autograd.grad(total, trained, allow_unused=True) if g is not None]
    assert total.isfinite()
    assert gradients
    assert all(g.isfinite().all() for g in gradients)


def check_first_that_fits(name, pairs, make, batch, anchors=4):
    """Check a step on the first pair (student, teacher, image shape) that the method accepts; others are refused in a sentence."""
    refusals = []
    for student, teacher, image in pairs:
        own = copy_of(network(student, image[0])).requires_grad_(True).train()
        try:
            method = make(name, image=image, student=own, teacher=network(teacher, image[0]), batch_size=anchors)
            check_a_step(method, batch(method, anchors=anchors))
            break
        except (RunError, UserError) as refusal:
            refusals.append(str(refusal))
    assert len(refusals) < len(pairs) or LACKS in refusals[-1], (
        "no pair fits, though all that the method needs is there"
    )
    assert all("\n" not in refusal and ". " not in refusal for refusal in refusals)


@pytest.mark.parametrize(("name", "family"), each_method(cases(FAMILIES)))
def test_a_step_is_finite(name, family, make, batch):
    """A pair that a method refuses is replaced by two networks of one architecture, on larger images if need be."""
    by_method = 1 + sum(name.encode()) % (len(FAMILIES) - 1)
    teacher = FAMILIES[(FAMILIES.index(family) + by_method) % len(FAMILIES)]
    pairs = [(family, teacher, (1, 8, 8)), (family, family, (1, 8, 8)), (family, family, (1, 32, 32))]
    check_first_that_fits(name, pairs, make, batch)


@pytest.mark.parametrize(("name", "family"), each_method(cases(LIBRARY)))
def test_a_step_with_networks_of_libraries_is_finite(name, family, make, batch):
    pytest.importorskip("timm")
    (other,) = set(LIBRARY) - {family}
    pairs = [(family, teacher, (3, 160, 160)) for teacher in (other, family)]
    # SemCKD's attention needs four images.
    check_first_that_fits(name, pairs, make, batch, anchors=4 if name == "semckd" else 2)
