import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdbench.methods.byot import hint_loss, logit_loss


def pairs(batch: int = 9, width: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    shallow, deepest = torch.randn(2, batch, width, generator=generator, dtype=torch.float64) * 2
    return shallow.requires_grad_(), deepest.requires_grad_()


def test_the_logit_loss_is_the_reference(reference):
    case = reference("byot_logit_T3")
    case.check(logit_loss(case.student["exit_logits"], case.fixed["deepest_logits"], case.params["temperature"]))


def test_the_hint_is_the_reference(reference):
    case = reference("byot_hint")
    case.check(hint_loss(case.student["exit_feature"], case.fixed["deepest_feature"], "sum"))


def test_losses_are_their_definitions():
    shallow, deepest = pairs()
    a, b = shallow.detach().numpy(), deepest.detach().numpy()
    hint = sum((x - y) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True) if x > 0 or y > 0)
    assert hint_loss(shallow, deepest, "sum").item() == pytest.approx(hint, rel=1e-10)
    assert hint_loss(shallow, deepest, "mean").item() == pytest.approx(hint / 9, rel=1e-10)

    def softmax(x):
        return np.exp(x) / np.exp(x).sum()

    logit = 9 * np.mean([-(softmax(y / 3) * np.log(softmax(x / 3))).sum() for x, y in zip(a, b, strict=True)])
    assert logit_loss(shallow, deepest, 3.0).item() == pytest.approx(logit, rel=1e-10)


@pytest.mark.parametrize("loss", [lambda x, y: logit_loss(x, y, 3.0), lambda x, y: hint_loss(x, y, "sum")])
def test_the_deepest_is_a_target_only(loss):
    shallow, deepest = pairs()
    gradients = torch.autograd.grad(loss(shallow, deepest), (shallow, deepest), allow_unused=True)
    assert gradients[0].abs().max() > 0
    assert gradients[1] is None


def test_the_batch_size_matters_to_the_summed_hint_alone():
    shallow, deepest = pairs()
    twice = shallow.repeat(2, 1), deepest.repeat(2, 1)
    torch.testing.assert_close(logit_loss(*twice, 3.0), logit_loss(shallow, deepest, 3.0))
    torch.testing.assert_close(hint_loss(*twice, "mean"), hint_loss(shallow, deepest, "mean"))
    torch.testing.assert_close(hint_loss(*twice, "sum"), 2 * hint_loss(shallow, deepest, "sum"))


def test_the_logit_loss_keeps_the_size_of_its_gradient_when_the_temperature_grows():
    shallow, deepest = pairs()
    norms = [torch.autograd.grad(logit_loss(shallow, deepest, t), shallow)[0].norm().item() for t in (30.0, 300.0)]
    assert norms[0] == pytest.approx(norms[1], rel=0.1)


def test_terms_add_up_to_the_definition(make, batch):
    method = make("byot", alpha=0.25, beta=0.01, temperature=2.0, hint_reduction="mean").eval()
    one = batch(method)
    out = method.student(one.images, features=True)
    ce, logit, hint = [F.cross_entropy(out.logits, one.labels)], 0.0, 0.0
    for shallow, stage in zip(method.shallow, out.stages[:-1], strict=True):
        feature = shallow.bottleneck(stage).mean((2, 3))
        logits = shallow.fc(feature)
        ce.append(F.cross_entropy(logits, one.labels))
        logit = logit + logit_loss(logits, out.logits, 2.0)
        hint = hint + hint_loss(feature, out.pooled, "mean")
    losses = {name: loss.item() for name, loss in method.losses(one).items()}
    expected = {
        "ce": 0.75 * ce[0].item(),
        "exit_ce": 0.75 * sum(ce[1:]).item(),
        "exit_logit": 0.25 * logit.item(),
        "exit_hint": 0.01 * hint.item(),
    }
    assert losses == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("student", "image", "strides"),
    [
        ("resnet8", (1, 8, 8), [(4, 4), (2, 2)]),
        ("resnet8", (3, 32, 32), [(4, 4), (2, 2)]),
        ("resnet18", (3, 16, 16), [(8, 8), (4, 4), (2, 2)]),
        ("resnet8", (3, 16, 12), [(4, 4), (2, 2)]),
        ("resnet8", (1, 1, 2), [(1, 2), (1, 1)]),  # stages of one resolution
    ],
)
def test_exits_bring_their_stage_to_the_shape_of_the_deepest(make, student, image, strides):
    method = make("byot", student=student, image=image)
    deepest = method.stage_shapes()[-1]
    for shallow, shape, stride in zip(method.shallow, method.stage_shapes()[:-1], strides, strict=True):
        convolutions = [m for m in shallow.modules() if isinstance(m, torch.nn.Conv2d)]
        quarter = deepest[0] // 4
        assert [(c.out_channels, c.kernel_size, c.stride) for c in convolutions] == [
            (quarter, (1, 1), (1, 1)),
            (quarter, stride, stride),
            (deepest[0], (1, 1), (1, 1)),
        ]
        assert all(c.bias is None for c in convolutions)
        assert shallow.bottleneck(torch.zeros(2, *shape)).shape == (2, *deepest)


def test_exits_are_the_shallow_classifiers(make, batch):
    method = make("byot", student="resnet18", image=(3, 8, 8)).eval()
    images = batch(method).images
    exits = method.exits(images)
    assert list(exits) == ["exit1", "exit2", "exit3"]
    stages = method.student(images, features=True).stages
    for shallow, stage, logits in zip(method.shallow, stages[:-1], exits.values(), strict=True):
        torch.testing.assert_close(logits, shallow(stage)[0])
        assert logits.shape == (6, 4)


def test_label_smoothing_reaches_the_exits(make, batch):
    plain, smooth = make("byot"), make("byot", label_smoothing=0.3)
    one = batch(plain)
    assert plain.losses(one)["exit_ce"].item() != pytest.approx(smooth.losses(one)["exit_ce"].item(), rel=1e-3)
