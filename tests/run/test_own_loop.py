"""A method in a loop that is not kdbench's: it computes what it computes in kdbench's, for networks of any kind."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import kdbench
from kdbench import methods
from kdbench.backbones import registry
from kdbench.config import places, signature
from kdbench.errors import UserError
from kdbench.method import Batch, Info, Teacher
from kdbench.streams import Streams

CONTRACT = Path(__file__).parent.parent / "contract" / "plugin"
SHAPE = (3, 16, 16)
LABELS = torch.arange(40) % 5


def backbone(name="resnet8", seed=0):
    torch.manual_seed(seed)
    return registry.build(name, 5)


def convolutional(width=6, seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 5),
    )  # fmt: skip


def batch(size=10):
    generator = torch.Generator().manual_seed(3)
    index = torch.randperm(len(LABELS), generator=generator)[:size]
    return torch.randn(size, *SHAPE, generator=generator), LABELS[index], index


@pytest.fixture
def plugins(own_plugins):
    places.add_plugins([str(CONTRACT)])


@pytest.mark.parametrize(("name", "own"), [("kd", {"temperature": 3.0}), ("rkd", {}), ("ce", {}), ("byot", {})])
def test_terms_are_those_of_the_method_in_kdbenchs_own_loop(name, own):
    student, teacher = backbone(), backbone("resnet14", 1) if name in ("kd", "rkd") else None
    info = Info(5, LABELS, SHAPE, 0.0, torch.device("cpu"))
    values = {"kd": {"ce_weight": 0.1, "kd_weight": 0.9, "temperature": 3.0}, "rkd": {}, "ce": {}, "byot": {}}[name]
    images, labels, index = batch()
    torch.manual_seed(7)
    wrapped = kdbench.wrap(
        copy.deepcopy(student), copy.deepcopy(teacher), method=name, classes=5, image_shape=SHAPE, **own
    )
    parameters = values or {field: getattr(wrapped.method, field) for field in wrapped.method.fields()}
    torch.manual_seed(7)
    method = methods.class_of(name)(student, [Teacher(teacher)] if teacher else [], info, **parameters)
    expected = method.losses(Batch(images, labels, index, 0, Streams(0)))
    terms = wrapped(images, labels)
    assert terms.keys() == expected.keys()
    assert all(torch.equal(terms[term], expected[term]) for term in terms)


@pytest.mark.parametrize("name", ["ce", "kd", "rkd", "crd", "byot"])
def test_networks_of_ones_own_learn_and_the_teacher_stays(name):
    student, teacher = convolutional(), convolutional(8, seed=2)
    before = copy.deepcopy(teacher.state_dict())
    needs_teacher = signature.of_method(name).attributes.get("needs_teacher", False)
    wrapped = kdbench.wrap(
        student, teacher if needs_teacher else None, method=name, classes=5, image_shape=SHAPE, labels=LABELS
    )
    assert {id(p) for p in student.parameters()} <= {id(p) for p in wrapped.parameters()}
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in wrapped.parameters()}
    optimiser = torch.optim.SGD(wrapped.parameters(), lr=0.05)
    images, labels, index = batch(20)
    losses = []
    for _ in range(12):
        loss = sum(wrapped(images, labels, index).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        wrapped.after_step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None for parameter in wrapped.parameters())
    if needs_teacher:
        assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
        assert not teacher.training
    assert student.training, "finding its stages leaves the mode of the student as it is"


def test_a_students_own_forward_pass_gives_logits_and_features():
    network = convolutional().eval()
    wrapped = kdbench.wrap(network, method="byot", classes=5, image_shape=SHAPE).eval()
    images, _, _ = batch()
    out = wrapped.method.student(images, features=True)
    assert torch.equal(out.logits, network(images))
    assert torch.equal(network[-1](out.pooled), out.logits)
    assert wrapped.method.stage_shapes()[-1] == tuple(out.stages[-1].shape[1:])


def test_logits_alone_need_no_classifier_at_the_end():
    student = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.ReLU(), nn.Linear(8, 5), nn.Softplus())
    images, labels, _ = batch()
    wrapped = kdbench.wrap(student, convolutional(), method="kd", classes=5)
    sum(wrapped(images, labels).values()).backward()
    with pytest.raises(UserError, match=r"^the student \(Sequential\) does not have square stage maps"):
        kdbench.wrap(student, convolutional(), method="rkd", classes=5)(images, labels)
    with pytest.raises(
        UserError, match=r"the student \(Linear\) does not have a linear layer with 7 outputs at its end"
    ):
        kdbench.wrap(nn.Linear(4, 5), convolutional(), method="crd", classes=7, labels=LABELS)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("corsd", "'corsd' needs 3 related images for each one"),
        ("dks", "'dks' needs networks whose stages run on their own"),
        ("cs_kd", "'cs_kd' needs 2 related images for each one"),
        ("dml", "'dml' trains further networks next to the student"),
        ("dot", "'dot' brings its own optimisers"),
        ("fsp", "'fsp' trains in phases"),
        ("ols", "'ols' works at the end of each epoch"),
        ("ps_kd", "'ps_kd' depends on the length of training"),
        (
            "ce_3x",
            r"'ce_3x' sets Control\.budget, which needs kdbench's own loop; run it with: kdbench run methods=ce_3x",
        ),
        ("crd", "'crd' keeps something of each training image; pass labels="),
        ("byot", "'byot' reads the shapes of feature maps; pass image_shape="),
        ("kdd", "unknown method 'kdd'; did you mean 'kd'"),
    ],
)
def test_what_another_loop_cannot_give_is_refused_in_one_sentence(plugins, name, sentence):
    needs_teacher = name in ("dot", "fsp", "crd")
    with pytest.raises(UserError, match=f"^{sentence}"):
        kdbench.wrap(convolutional(), convolutional() if needs_teacher else None, method=name, classes=5)


def test_wrong_arguments_are_refused_in_one_sentence():
    with pytest.raises(UserError, match=r"^'kd' needs a teacher"):
        kdbench.wrap(convolutional(), method="kd", classes=5)
    with pytest.raises(UserError, match=r"^'ce' does not use a teacher"):
        kdbench.wrap(convolutional(), convolutional(), method="ce", classes=5)
    network = convolutional()
    with pytest.raises(UserError, match=r"^student and teacher share parameters"):
        kdbench.wrap(network, nn.Sequential(network), method="kd", classes=5)
    with pytest.raises(UserError, match="did you mean 'temperature'"):
        kdbench.wrap(convolutional(), convolutional(), method="kd", classes=5, temprature=2.0)
    with pytest.raises(UserError, match=r"KD\.temperature"):
        kdbench.wrap(convolutional(), convolutional(), method="kd", classes=5, temperature="hot")
    images, labels, _ = batch()
    with pytest.raises(UserError, match="pass index="):
        kdbench.wrap(convolutional(), convolutional(), method="crd", classes=5, labels=LABELS)(images, labels)


@pytest.mark.parametrize(
    ("read", "sentence"), [("index", "pass index="), ("progress", r"length of training \(batch.progress\)")]
)
def test_what_the_loop_did_not_give_is_refused_where_a_function_of_the_method_reads_it(read, sentence):
    wrapped = kdbench.wrap(convolutional(), method="ce", classes=5)
    images, labels, index = batch()
    wrapped.method.losses = lambda batch: {"ce": getattr(batch, read).float().mean()}
    with pytest.raises(UserError, match=sentence):
        wrapped(images, labels)
    if read == "index":
        assert wrapped(images, labels, index)["ce"] == index.float().mean()


def test_draws_follow_torchs_seed_and_continue_from_a_state_dict():
    def made():
        torch.manual_seed(5)
        return kdbench.wrap(convolutional(), convolutional(), method="crd", classes=5, labels=LABELS)

    first, second, resumed = made(), made(), made()
    for _ in range(2):
        terms = first(*batch())
        assert terms == second(*batch())
    resumed.load_state_dict(first.state_dict())
    assert resumed.get_extra_state() == {"calls": 2}
    terms = first(*batch())
    assert terms == resumed(*batch())
    assert terms != second.eval()(*batch())


def test_the_teacher_moves_with_the_student():
    teacher = convolutional()
    wrapped = kdbench.wrap(convolutional(), teacher, method="kd", classes=5).double()
    assert next(teacher.parameters()).dtype == torch.float64
    images, labels, _ = batch()
    sum(wrapped(images.double(), labels).values()).backward()


def test_the_teacher_stays_in_evaluation_mode_where_the_caller_holds_it():
    teacher = convolutional()
    wrapped = kdbench.wrap(convolutional(), teacher, method="kd", classes=5)
    nn.ModuleList([wrapped, teacher]).train()
    images, labels, _ = batch()
    before = copy.deepcopy(teacher.state_dict())
    wrapped(images, labels)
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())


def test_a_loaded_student_teaches():
    """As `load_student` returns it: a normalisation, then a backbone."""
    teacher = nn.Sequential(nn.Identity(), backbone("resnet14"))
    images, labels, _ = batch()
    wrapped = kdbench.wrap(convolutional(), teacher, method="rkd", classes=5)
    assert {"distance", "angle"} < wrapped(images, labels).keys()
