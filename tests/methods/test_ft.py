import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdbench.config.settings import SGD
from kdbench.method import RunError, Teacher, distillation
from kdbench.methods.ft import FT, Paraphraser, Translator, attention, ft_loss


def factors(batch=3, widths=(2, 3), sides=(4, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, width, side, side, generator=generator, dtype=torch.float64)
        for width, side in zip(widths, sides, strict=True)
    ]


def slow_attention(factor):
    """Of one image, an array (k, H, W)."""
    squares = np.array(
        [[(factor[:, h, w] ** 2).mean() for w in range(factor.shape[2])] for h in range(factor.shape[1])]
    )
    return squares / np.sqrt((squares**2).sum())


def layers(case, prefix, target, step):
    """The values of a case for the convolutions of `target`, which are `step` layers apart."""
    values = {}
    for name, value in case.fixed.items():
        if name.startswith(prefix):
            number, *norm, part = name.removeprefix(prefix).split("_")
            values[f"{target}.{(int(number) - 1) * step + bool(norm)}.{part}"] = value
    return values


def test_losses_of_given_factors_are_the_reference(reference):
    for name, compare in (("ft", "attention"), ("ft_resolution", "attention"), ("ft_paper", "factor")):
        case = reference(name)
        case.check(ft_loss(case.student["student_factor"], case.fixed["teacher_factor"], compare))


def test_the_reconstruction_is_the_reference(reference):
    case = reference("ft_paraphraser")
    x = case.student["teacher_map"]
    paraphraser = Paraphraser(x.shape[1], int(case.params["k"] * x.shape[1])).double()
    paraphraser.load_state_dict(layers(case, "encoder", "encoder", 2) | layers(case, "decoder", "decoder", 2))
    case.check(F.mse_loss(paraphraser(x), x))


def test_the_loss_of_the_translated_map_is_the_reference(reference):
    case = reference("ft_translated")
    x, target = case.student["student_map"], case.fixed["teacher_map"]
    paraphraser, translator = Paraphraser(4, 2).double(), Translator(3, 2, norm=True).double()
    paraphraser.load_state_dict(layers(case, "encoder", "encoder", 2), strict=False)
    translator.load_state_dict(layers(case, "translator", "layers", 3), strict=False)
    case.check(ft_loss(translator(x), paraphraser.encode(target).detach()))


def test_losses_are_their_definitions():
    x, target = factors()
    images = [(a.numpy(), t.numpy()) for a, t in zip(x, target, strict=True)]
    expected = np.mean([np.abs(slow_attention(a) - slow_attention(t)).mean() for a, t in images])
    assert ft_loss(x, target).item() == pytest.approx(expected, rel=1e-12)
    x, target = factors(widths=(3, 3))
    images = [(a.numpy(), t.numpy()) for a, t in zip(x, target, strict=True)]
    whole = [np.abs(a / np.linalg.norm(a.ravel()) - t / np.linalg.norm(t.ravel())).mean() for a, t in images]
    assert ft_loss(x, target, "factor").item() == pytest.approx(np.mean(whole), rel=1e-12)


@pytest.mark.parametrize("compare", ["attention", "factor"])
def test_gradients_are_those_of_finite_differences(compare):
    x, target = factors(batch=2, widths=(2, 2), sides=(2, 2))
    assert torch.autograd.gradcheck(lambda x: ft_loss(x, target, compare), x.requires_grad_())


@pytest.mark.parametrize("compare", ["attention", "factor"])
def test_the_larger_factor_is_averaged(compare):
    small, large = factors(widths=(2, 2), sides=(2, 4))
    pooled = F.adaptive_avg_pool2d(large, 2)
    assert ft_loss(small, large, compare) == ft_loss(small, pooled, compare)
    assert ft_loss(large, small, compare) == ft_loss(pooled, small, compare)


@pytest.mark.parametrize("compare", ["attention", "factor"])
def test_the_scale_of_a_factor_and_the_order_and_size_of_the_batch_do_not_matter(compare):
    x, target = factors(widths=(2, 2))
    loss = ft_loss(x, target, compare).item()
    assert ft_loss(3 * x, target / 7, compare).item() == pytest.approx(loss)
    assert ft_loss(x.flip(0), target.flip(0), compare).item() == pytest.approx(loss)
    assert ft_loss(x.repeat(2, 1, 1, 1), target.repeat(2, 1, 1, 1), compare).item() == pytest.approx(loss)
    if compare == "attention":
        assert ft_loss(-x.flip(1), target, compare).item() == pytest.approx(loss), "the channels are thrown away"


@pytest.mark.parametrize("compare", ["attention", "factor"])
def test_zero_factors_have_a_finite_value_and_gradient(compare):
    _, target = factors(widths=(2, 2))
    x = torch.zeros_like(target).requires_grad_()
    loss = ft_loss(x, target, compare)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.isfinite()
    assert (gradient == 0).all()
    assert (attention(torch.zeros(2, 3, 4, 4)) == 0).all()


@pytest.mark.parametrize(("reconstruction", "error"), [("l2", F.mse_loss), ("l1", F.l1_loss)])
def test_phase_1_trains_the_paraphraser_and_nothing_of_the_student(make, batch, reconstruction, error):
    method = make("ft", teacher="resnet8x4", part="both", reconstruction=reconstruction)
    one = batch(method)
    target = method.teacher(one.images, features=True).stages[-1]
    first, second = method.phases()
    loss = first.losses(one)["paraphraser"]
    assert loss.item() == pytest.approx(error(method.paraphraser(target), target).item(), rel=1e-5)
    loss.backward()
    reached = {name for name, p in method.named_parameters() if p.grad is not None}
    trained = [
        {name for name, p in method.named_parameters() if any(p is each for each in phase.trains)}
        for phase in (first, second)
    ]
    assert reached == trained[0]
    assert all(name.startswith("paraphraser.") for name in reached)
    assert trained[1] == {name for name, _ in method.named_parameters()} - reached
    assert method.student.images_passed == 0
    assert (first.passes, first.rate, first.share) == (0, "constant", 0.125)


@pytest.mark.parametrize("part", ["both", "transfer"])
def test_phase_2_trains_on_the_weighted_losses_and_leaves_the_paraphraser(make, batch, part):
    method = make("ft", teacher="resnet8x4", part=part, weight=3.0).eval()
    one = batch(method)
    x, target = (net(one.images, features=True).stages[-1] for net in (method.student, method.teacher))
    paraphraser = (method if part == "both" else method.teachers[0].method).paraphraser
    factor, wanted = method.translator(x), paraphraser.encode(target)
    terms = method.losses(one)
    assert list(terms) == ["ce", "ft"]
    assert terms["ft"].item() == pytest.approx(3 * ft_loss(factor, wanted).item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)
    sum(terms.values()).backward()
    assert all(p.grad is None for p in paraphraser.parameters())
    trained = method.phases()[-1].trains or [p for p in method.parameters() if p.requires_grad]
    assert all(p.grad.isfinite().all() for p in trained)
    method.compare = "factor"
    assert method.losses(one)["ft"].item() == pytest.approx(3 * ft_loss(factor, wanted, "factor").item(), rel=1e-5)


def test_distillation_is_a_term_if_it_has_a_weight(make, batch):
    method = make("ft", kd_weight=0.5, temperature=2.0).eval()
    one = batch(method)
    expected = 0.5 * distillation(method.student(one.images), method.teacher(one.images), 2.0).item()
    assert method.losses(one)["kd"].item() == pytest.approx(expected, rel=1e-5)


def test_parameters_reach_the_modules(make):
    method = make("ft", teacher="resnet8x4", part="both", factor_rate=0.25, translator_norm=False)
    assert method.paraphraser.encode(torch.zeros(1, 256, 2, 2)).shape == (1, 64, 2, 2)
    assert method.translator(torch.zeros(1, 64, 2, 2)).shape == (1, 64, 2, 2)
    kinds = [type(layer).__name__ for layer in method.translator.layers]
    assert kinds == ["Conv2d", "LeakyReLU"] * 3
    assert [type(layer).__name__ for layer in make("ft").translator.layers] == [
        "Conv2d",
        "BatchNorm2d",
        "LeakyReLU",
    ] * 3


def test_phase_1_alone_has_a_rate_of_its_own(make):
    method = make("ft", part="both", rate_factor=0.2)
    settings = SGD(lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=False)
    first, second = (method.optimisers(list(phase.trains), settings)["sgd"] for phase in method.phases())
    assert first.param_groups[0]["rate_factor"] == 0.2
    assert "rate_factor" not in second.param_groups[0]


@pytest.mark.parametrize(
    ("student", "teacher", "compare", "image"),
    [
        ("resnet8", "resnet18", "attention", (1, 16, 16)),
        ("resnet18", "resnet8", "factor", (1, 8, 8)),
        ("resnet8", "resnet18", "factor", (1, 8, 8)),
        ("wrn_16_1", "resnet8x4", "attention", (1, 8, 8)),
    ],
)
@pytest.mark.parametrize("part", ["both", "transfer"])
def test_widths_and_resolutions_may_differ(make, batch, student, teacher, compare, image, part):
    method = make("ft", student=student, teacher=teacher, compare=compare, image=image, part=part)
    one = batch(method)
    if part == "both":
        assert method.paraphrase(one)["paraphraser"].isfinite()
    method.losses(one)["ft"].backward()
    first = next(method.student.parameters())
    assert first.grad.isfinite().all()
    assert first.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("student", "teacher", "maps"), [("resnet8", "resnet18", "2×2 and 1×1"), ("resnet18", "resnet8", "1×1 and 2×2")]
)
def test_attention_to_a_single_pixel_is_refused(make, student, teacher, maps):
    sentence = (
        f"the deepest maps of student and teacher have {maps} pixels; take larger images, .* or FT.compare='factor'"
    )
    with pytest.raises(RunError, match=sentence):
        make("ft", student=student, teacher=teacher)


def test_the_paraphraser_of_the_teachers_run_is_kept_as_it_is(make):
    method = make("ft", teacher="resnet8x4")
    trained = method.teachers[0].method.paraphraser
    assert not any(name.startswith("paraphraser.") for name in method.state_dict()), "nothing of it is stored again"
    assert not any(p.requires_grad for p in trained.parameters())
    (phase,) = method.phases()
    assert phase.share is None


def test_a_paraphraser_alone_leaves_the_teachers_network_as_student(make, batch):
    method = make("ft", student="resnet14", part="paraphraser")
    (phase,) = method.phases()
    phase.losses(batch(method))["paraphraser"].backward()
    reached = {name for name, p in method.named_parameters() if p.grad is not None}
    assert reached == {f"paraphraser.{name}" for name, _ in method.paraphraser.named_parameters()}
    weights, teachers = method.student.state_dict(), method.teacher.state_dict()
    assert all(torch.equal(weights[name], teachers[name]) for name in weights)
    assert not any(p.requires_grad for p in method.student.parameters())
    assert phase.passes == 0


def test_a_teacher_without_the_wanted_paraphraser_is_refused(make):
    with pytest.raises(RunError, match=r"ft needs the FT.factor_rate of the teacher's paraphraser, 0.5, not 0.25"):
        make("ft", factor_rate=0.25)
    alone = make("ft", student="resnet14", part="paraphraser")
    with pytest.raises(RunError, match="which a run of ft_paraphraser trains"):
        type(alone)(alone.student, [Teacher(alone.teacher)], alone.info, **own_values(alone))


def own_values(method):
    """The parameters of a method, for part "transfer"."""
    return {name: getattr(method, name) for name in FT.__annotations__} | {"part": "transfer"}
