"""Every method with every family of backbones, as student and as teacher: one step on tiny images.

With KDBENCH_EVERY=1 with every backbone, which takes some minutes.
"""

import os
from pathlib import Path

import pytest
import torch

from kdbench.config import extensions, signature

FAMILIES = (
    "resnet8", "resnet18", "wrn_16_1", "senet18", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2_x0_5",
    "densenet_40_12", "efficientnet_b0", "vit_tiny",
)  # fmt: skip
if os.environ.get("KDBENCH_EVERY"):
    FAMILIES = tuple(extensions.members("backbone"))
METHODS = sorted(path.stem for path in (Path(__file__).parents[2] / "methods").glob("*.py"))


def one_step(method, draw):
    """Loss of a first step, and its gradients by the student's weights."""
    terms = method.losses(draw(method))
    total = sum(terms.values())
    trained = [p for p in method.student.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(total, trained, allow_unused=True)
    return total, [g for g in gradients if g is not None]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_finite(name, family, make, batch):
    roles = [{"student": family}]
    if signature.of_method(name).attributes.get("needs_teacher"):
        roles.append({"teacher": family})
    for role in roles:
        total, gradients = one_step(make(name, image=(1, 8, 8), **role), batch)
        assert total.isfinite()
        assert gradients
        assert all(g.isfinite().all() for g in gradients)
