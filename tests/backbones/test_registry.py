import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdbench.backbones.registry import build
from kdbench.config import extensions
from kdbench.errors import UserError

NAMES = tuple(extensions.members("backbone"))
PUBLISHED = json.loads((Path(__file__).parents[1] / "reference/models.json").read_text())["models"]


OTHER_NAMES = {"ShuffleV1": "shufflenetv1", "ShuffleV2": "shufflenetv2"}
SLOW = ("resnet44", "resnet56", "resnet110", "resnet101", "resnet152", "wide_resnet50_2", "wrn_28_10", "vit_small")
"""Only slower than others of their family."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_shapes_are_the_published_ones(name):
    with torch.device("meta"):  # parameters are counted and shapes compared: nothing need be computed
        model = build(OTHER_NAMES.get(name, name.lower()), classes=100).eval()
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name]["parameters"]
    stem, *stages, pooled = PUBLISHED[name]["features"]
    assert model.stage_shapes((3, 32, 32)) == tuple(map(tuple, stages))
    with torch.no_grad():
        out = model(torch.zeros(2, 3, 32, 32, device="meta"), features=("stem",))
    assert out.stem.shape == (2, *stem)
    assert out.pooled.shape == (2, *pooled)
    assert out.logits.shape == (2, 100)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SLOW])
def test_small_grey_images(name):
    model = build(name, classes=7, channels=1)
    out = model(torch.randn(2, 1, 8, 8), features=True)
    assert out.logits.shape == (2, 7)
    assert out.pooled.shape == (2, model.fc.in_features)
    sides = [stage.shape[-1] for stage in out.stages]
    assert sides == sorted(sides, reverse=True)
    assert torch.equal(model.eval()(torch.ones(2, 1, 8, 8)), model(torch.ones(2, 1, 8, 8), features=True).logits)


@pytest.mark.parametrize("name", SLOW)
def test_large_networks_can_be_built(name):
    with torch.device("meta"):
        model = build(name, classes=7)
    assert model.fc.out_features == 7


def test_parameter_names_are_repdistillers():
    batch_norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{part}" for part in batch_norm)}
    for stage in (1, 2, 3):
        for block in range(2):
            for layer in (1, 2):
                names.add(f"layer{stage}.{block}.conv{layer}.weight")
                names.update(f"layer{stage}.{block}.bn{layer}.{part}" for part in batch_norm)
        if stage > 1:
            names.add(f"layer{stage}.0.downsample.0.weight")
            names.update(f"layer{stage}.0.downsample.1.{part}" for part in batch_norm)
    assert set(build("resnet14", classes=3).state_dict()) == names


def published_names(name):
    """Names of a network's state dict without those of batch normalisation."""
    return {
        key
        for key in build(name, classes=3).state_dict()
        if not re.search(r"running|num_batches|bn|\b(norm|bias)", key)
    }


def test_names_of_other_families_are_repdistillers_too():
    assert published_names("wrn_16_1") == {
        "conv1.weight", "fc.weight",
        *(f"block{stage}.layer.{i}.conv{k}.weight" for stage in (1, 2, 3) for i in (0, 1) for k in (1, 2)),
        *(f"block{stage}.layer.0.convShortcut.weight" for stage in (2, 3)),
    }  # fmt: skip
    assert {f"block{i}.{k}.weight" for i in range(5) for k in (0, 1)} | {"classifier.weight"} == published_names("vgg8")
    names = published_names("mobilenetv2")
    assert {"conv1.0.weight", "blocks.6.0.conv.7.weight", "conv2.0.weight", "classifier.0.weight"} <= names
    assert {"conv1.weight", "layer2.7.conv3.weight", "linear.weight"} <= published_names("shufflenetv1")
    assert {"layer1.0.conv5.weight", "layer3.3.conv3.weight", "conv2.weight"} <= published_names("shufflenetv2")


def test_stages_are_those_that_lead_to_the_logits():
    """The last stage, pooled, is what the classifier reads; maps are taken after the ReLU."""
    model = build("resnet8", classes=5).eval()
    out = model(torch.randn(3, 3, 16, 16), features=True)
    assert all((stage >= 0).all() for stage in out.stages)
    torch.testing.assert_close(out.stages[-1].mean((2, 3)), out.pooled)
    torch.testing.assert_close(model.fc(out.pooled), out.logits)


def test_a_block_adds_to_its_shortcut():
    model = build("resnet14", classes=5).eval()
    maps = torch.rand(2, 16, 8, 8)
    torch.nn.init.zeros_(model.layer1[0].bn2.weight)
    torch.testing.assert_close(model.layer1[0](maps), maps)
    torch.nn.init.zeros_(model.layer2[0].bn2.weight)
    torch.testing.assert_close(model.layer2[0](maps), model.layer2[0].downsample(maps).relu())


@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
def test_initialisation(name):
    torch.manual_seed(0)
    model = build(name, classes=10)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            expected = (2 / (module.out_channels * module.kernel_size[0] ** 2)) ** 0.5
            # The sample deviation of n values is off by 1 / √(2n) of itself; 5 times that is never met by chance.
            assert module.weight.std().item() == pytest.approx(expected, rel=5 / (2 * module.weight.numel()) ** 0.5)
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def test_stage_shapes_leave_the_network_as_it_was():
    model = build("resnet8", classes=5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.stage_shapes((3, 16, 16))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_logits_are_float32_under_autocast():
    model = build("resnet8", classes=5)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(torch.randn(2, 3, 8, 8), features=True)
    assert out.stages[-1].dtype == torch.bfloat16
    assert out.logits.dtype == out.pooled.dtype == torch.float32


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown student 'resnet33'; did you mean 'resnet3"):
        build("resnet33", classes=10)


def test_depths_that_are_none_are_refused():
    from kdbench.backbones.cifar_resnet import CifarResNet

    with pytest.raises(ValueError, match="6n \\+ 2"):
        CifarResNet(depth=18, widths=(16, 16, 32, 64), classes=10, channels=3)


def test_names_are_known_without_torch():
    code = (
        "import sys, kdbench.backbones.registry; from kdbench.config import extensions\n"
        "assert 'resnet8' in extensions.members('backbone'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
