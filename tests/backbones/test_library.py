"""Networks of torchvision and timm as backbones."""

import pytest
import torch

from kdbench.backbones import library_models, library_stages, registry
from kdbench.errors import RunError, UserError
from kdbench.plan import expand, request, teachers
from kdbench.plan.request import WeightFile
from kdbench.plan.spec import is_run_name
from kdbench.run import weight_file
from kdbench.run.execute import run
from kdbench.run.load import deployed

# timm has networks of its own for tests, at 160x160.
NAMES = [
    ("torchvision/resnet18", 32), ("torchvision/mobilenet_v3_small", 32), ("torchvision/shufflenet_v2_x0_5", 64),
    ("torchvision/regnet_y_400mf", 32), ("timm/test_vit", 160), ("timm/test_convnext", 64), ("timm/test_efficientnet", 64),
]  # fmt: skip


@pytest.fixture(scope="module", params=NAMES, ids=[name for name, _ in NAMES])
def built(request):
    pytest.importorskip("timm")
    name, side = request.param
    torch.manual_seed(0)
    return registry.build(name, 5, 3).eval(), torch.randn(2, 3, side, side)


def test_logits_are_the_librarys(built):
    network, images = built
    logits = network.network(images)
    assert torch.equal(network(images), logits)
    out = network(images, features=True)
    assert torch.equal(out.logits, logits)
    assert torch.equal(network.fc(out.pooled), logits)
    assert torch.equal(network.classify(out.pooled), logits)


def test_stage_maps_become_smaller_and_have_the_declared_shapes(built):
    network, images = built
    out = network(images, features=True)
    assert [tuple(each.shape[1:]) for each in out.stages] == list(network.stage_shapes(tuple(images.shape[1:])))
    sides = [each.shape[-1] for each in out.stages]
    assert len(sides) == 4
    assert sides == sorted(sides, reverse=True)
    assert len(set(sides)) == 4 or len(set(sides)) == 1, "a transformer's are all alike"


def test_the_state_has_the_librarys_names(built):
    network, images = built
    state = network.state_dict()
    assert state.keys() == network.network.state_dict().keys()
    other = registry.build(network.model, 5, 3).eval()
    assert not torch.equal(other(images), network(images))
    other.load_state_dict(state)
    assert torch.equal(other(images), network(images))
    within = torch.nn.ModuleDict({"student": other})
    assert {name.removeprefix("student.") for name in within.state_dict()} == set(state)
    within.load_state_dict(within.state_dict())


@pytest.fixture(scope="module")
def models():
    """torchvision's, imported here because a process that only collects the tests can do without those seconds."""
    from torchvision import models

    return models


def test_the_stages_of_a_residual_network_are_its_layers(models):
    network = registry.build("torchvision/resnet18", 5, 3).eval()
    images = torch.randn(2, 3, 64, 64)
    original = models.resnet18(num_classes=5).eval()
    original.load_state_dict(network.state_dict())
    x = original.maxpool(original.relu(original.bn1(original.conv1(images))))
    for ours, layer in zip(
        network(images, features=True).stages,
        (original.layer1, original.layer2, original.layer3, original.layer4),
        strict=True,
    ):
        x = layer(x)
        assert torch.equal(ours, x)


def test_tokens_become_a_map_without_the_class_token():
    tokens = torch.arange(5.0)[None, :, None].expand(1, 5, 3)
    assert library_stages.as_map(tokens)[0, 0].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    channels_last = torch.zeros(1, 7, 7, 3)
    assert library_stages.as_map(channels_last).shape == (1, 3, 7, 7)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("student=torchvision/resnet19", "torchvision has no model 'resnet19'; did you mean torchvision/resnet1"),
        (
            "student=timm/vit_tiny_patch16_22",
            "timm has no model 'vit_tiny_patch16_22'; did you mean timm/vit_tiny_patch16_224",
        ),
        ("student=timm/resnet18.nix", "timm has no model 'resnet18.nix'; did you mean timm/resnet18."),
        ("teacher=torchvision/nix methods=kd", "torchvision has no model 'nix'"),
        ("student=torchvision/resnet18:V9", "resnet18 has no weights 'V9'; valid: IMAGENET1K_V1"),
        ("teacher=torchvision/nix:w.pth methods=kd", "torchvision has no model 'nix'"),
        ("teacher=torchvision/resnet18:w.pth methods=kd", "weight file 'w.pth' does not exist"),
        ("teacher=timm/resnet18.a1_in1k:w.pth methods=kd", "for weights in a file, pass timm/resnet18:w.pth"),
        ("student=keras/resnet50", "unknown student 'keras/resnet50'"),
    ],
)
def test_an_unknown_model_is_refused_with_the_nearest_names(word, sentence):
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=sentence):
        expand.plan(
            request.parse(["methods=ce", "dataset=digits", *word.split()][:: -1 if "methods" in word else 1][:3])
        )


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(library_models, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package timm; install it with: pip install 'kdbench\[timm\]'"):
        registry.check("timm/resnet18", "student")


def test_the_map_that_the_classifier_averages():
    pytest.importorskip("timm")
    images = torch.randn(2, 3, 32, 32)
    for name in ("torchvision/shufflenet_v2_x0_5", "timm/resnet10t"):
        out = registry.build(name, 5, 3).eval()(images, features=("unpooled",))
        torch.testing.assert_close(out.unpooled.mean(dim=(2, 3)), out.pooled)
        assert out.unpooled is out.stages[-1]
    transformer = registry.build("timm/test_vit", 5, 3)
    sentence = "test_vit does not offer unpooled: its classifier does not read the average of its last map"
    for _ in range(2):
        with pytest.raises(UserError, match=sentence):
            transformer(torch.randn(2, 3, 160, 160), features=("unpooled",))


def test_what_a_model_lacks_is_one_sentence():
    network = registry.build("torchvision/shufflenet_v2_x0_5", 5, 3)
    with pytest.raises(UserError, match=r"torchvision/shufflenet_v2_x0_5 does not offer stages that run on their own"):
        network.stage_modules()
    with pytest.raises(UserError, match="does not offer preactivations"):
        network(torch.randn(1, 3, 32, 32), features=("preactivations", "unpooled"))
    with pytest.raises(UserError, match="takes images of 3 channels, not 1"):
        registry.build("torchvision/resnet18", 5, 1)
    with pytest.raises(UserError, match="squeezenet1_1 has no linear classifier at its end"):
        registry.build("torchvision/squeezenet1_1", 5, 3)
    with pytest.raises(UserError, match="resnet18 has no weights 'V9'; valid: IMAGENET1K_V1"):
        registry.build("torchvision/resnet18:V9", 5, 3)


def test_another_size_is_refused_with_the_right_one():
    pytest.importorskip("timm")
    network = registry.build("timm/vit_tiny_patch16_224", 5, 3)
    with pytest.raises(
        UserError, match=r"vit_tiny_patch16_224 cannot take images of 64x64; it is made for 224x224 .*Dataset.size=224"
    ):
        network(torch.randn(1, 3, 64, 64))


def test_pretrained_weights_see_images_as_in_their_training(monkeypatch, models):
    torch.manual_seed(0)
    published = models.resnet18(num_classes=1000).state_dict()
    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", lambda *_, **__: published)
    weights = models.ResNet18_Weights.IMAGENET1K_V1
    whole = registry.build("torchvision/resnet18:IMAGENET1K_V1", 1000, 3).eval()
    pixels = torch.rand(2, 3, 64, 64)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    whole.renormalise(mean, std)
    ours = (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    preset = weights.transforms()
    theirs = (pixels - torch.tensor(preset.mean).view(-1, 1, 1)) / torch.tensor(preset.std).view(-1, 1, 1)
    original = models.resnet18(num_classes=1000).eval()
    original.load_state_dict(published)
    assert torch.allclose(whole(ours), original(theirs), atol=1e-4)
    few = registry.build("torchvision/resnet18:IMAGENET1K_V1", 5, 3)
    assert few.fc.out_features == 5
    assert torch.equal(few.state_dict()["conv1.weight"], published["conv1.weight"])
    again = registry.build("torchvision/resnet18:IMAGENET1K_V1", 1000, 3, pretrained=False).eval()
    again.load_state_dict(whole.state_dict())
    assert torch.equal(again(ours), whole(ours))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_inceptions_are_rebuilt_as_they_were_with_weights(monkeypatch, models, name):
    torch.manual_seed(0)
    enum = models.get_model_weights(name)
    options = {"transform_input": True, "aux_logits": True, "init_weights": False}
    published = models.get_model(name, weights=None, **options).state_dict()
    monkeypatch.setattr(enum, "get_state_dict", lambda *_, **__: published)
    whole = registry.build(f"torchvision/{name}:IMAGENET1K_V1", 5, 3).eval()
    again = registry.build(f"torchvision/{name}:IMAGENET1K_V1", 5, 3, pretrained=False).eval()
    again.load_state_dict(whole.state_dict())
    images = torch.randn(1, 3, 96, 96)
    assert torch.equal(again(images), whole(images))


def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch, models):
    def fetch(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", fetch)
    with pytest.raises(
        UserError, match=r"the weights of torchvision/resnet18:IMAGENET1K_V1 cannot be loaded \(OSError: no network\)"
    ):
        registry.build("torchvision/resnet18:IMAGENET1K_V1", 5, 3)


def test_a_run_of_a_librarys_student_and_teacher(tmp_path, cats_and_dogs):
    cats_and_dogs(tmp_path / "data", 6, 6)
    words = [
        "methods=kd",
        "dataset=imagefolder",
        "student=torchvision/shufflenet_v2_x0_5",
        "recipe=quick",
        "Train.epochs=1",
    ]
    words += [
        "teacher=torchvision/mobilenet_v3_small",
        "Train.warmup=0",
        "Train.batch_size=4",
        "Measures.corruptions=False",
    ]
    words += ["Measures.images=4", "Dataset.size=32", "Split.validation=0"]
    teacher, student = expand.plan(request.parse(words))
    assert is_run_name(student.id)
    results = [run(spec, tmp_path / "runs", tmp_path / "data") for spec in (teacher, student)]
    assert [each["status"] for each in results] == ["finished", "finished"], results[-1].get("error")
    assert results[1]["student"] == "torchvision/shufflenet_v2_x0_5"
    assert results[1]["teacher"] == "torchvision/mobilenet_v3_small"
    network = deployed(tmp_path / "runs" / student.id)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def test_a_file_in_the_librarys_own_names_teaches_the_network_that_it_is_named_for(tmp_path, models):
    original = models.shufflenet_v2_x0_5(num_classes=5).eval()
    path = tmp_path / "shufflenetv2_x0.5-f707e7126e.pth"
    torch.save(original.state_dict(), path)
    file = WeightFile.of(f"torchvision/shufflenet_v2_x0_5:{path}")
    assert (file.network, file.path) == ("torchvision/shufflenet_v2_x0_5", path)
    name, state = weight_file.fitting(weight_file.read(path), path, 5, 3, file.network)
    network = registry.build(name, 5, 3, pretrained=False).eval()
    network.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(network(images), original(images))
    with pytest.raises(RunError, match=r"do not fit torchvision/shufflenet_v2_x0_5: .* 5 classes, here 7"):
        weight_file.fitting(weight_file.read(path), path, 7, 3, file.network)
    before = teachers.look_up(f"torchvision/shufflenet_v2_x0_5:{path}", None)
    assert before.name == path.stem
    identity = before.identity
    moved = path.rename(tmp_path / "w.pth")
    assert teachers.look_up(f"torchvision/shufflenet_v2_x0_5:{moved}", None).identity == identity
