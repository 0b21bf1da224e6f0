import numpy as np
import pytest
import torch

from kdbench.methods.corsd import CORSD, mixed_loss, positive_loss, ranking_loss, relation_loss, shallow_kl
from kdbench.streams import Streams

WEIGHTS = {"ranking": 0.01, "relation": 0.01, "aux_ce": 0.04, "aux_kd": 0.16, "mixed_ce": 0.01, "mixed_kd": 0.04}


def terms(positive, negative, positive_logits, negative_logits, labels, negative_labels, t=3.0, margin=1.0):
    """All six, unweighted, as the method puts them together."""
    return {
        "ranking": ranking_loss(positive, negative, margin),
        "relation": relation_loss(positive, True) + relation_loss(negative, True),
        "aux_ce": positive_loss(positive_logits, labels, 0.0),
        "aux_kd": shallow_kl(positive_logits, t, "softened", True),
        "mixed_ce": mixed_loss(negative_logits, labels, negative_labels, t, False),
        "mixed_kd": shallow_kl(negative_logits, t, "softened", True),
    }


def random_inputs(stages=3, triplets=11, classes=6):
    generator = torch.Generator().manual_seed(6)
    scores = torch.rand(2, stages, triplets, generator=generator, dtype=torch.float64)
    logits = torch.randn(2, stages, triplets, classes, generator=generator, dtype=torch.float64) * 2
    labels = torch.randint(classes, (triplets,), generator=generator)
    other = (labels + torch.randint(1, classes, (triplets,), generator=generator)) % classes
    return (*scores, *logits, labels, other)


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def test_terms_are_the_reference(reference):
    case = reference("corsd_terms")
    assert case.params["weights"] == WEIGHTS
    parts = terms(**case_inputs(case), t=case.params["temperature"], margin=case.params["margin"])
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(WEIGHTS[name] * part for name, part in parts.items()))


def case_inputs(case):
    student, fixed = case.student, case.fixed
    return {
        "positive": student["positive_scores"],
        "negative": student["negative_scores"],
        "positive_logits": student["positive_logits"],
        "negative_logits": student["negative_logits"],
        "labels": fixed["labels"],
        "negative_labels": fixed["negative_labels"],
    }


def test_terms_are_their_definitions():
    inputs = random_inputs()
    rp, rn, zp, zn, labels, other = (x.numpy() for x in inputs)
    expected = dict.fromkeys(WEIGHTS, 0.0)
    for s in range(3):
        for m in range(11):
            expected["ranking"] += max(rp[s, m] - rn[s, m] + 1, 0) / 11
            expected["aux_ce"] -= np.log(softmax(zp[s, m])[labels[m]]) / 11
            halves = np.log(softmax(zn[s, m] / 3))
            expected["mixed_ce"] -= (halves[labels[m]] + halves[other[m]]) / 2 / 11
            if s < 2:
                expected["relation"] += ((rp[s, m] - rp[2, m]) ** 2 + (rn[s, m] - rn[2, m]) ** 2) / 11
                for name, z in (("aux_kd", zp), ("mixed_kd", zn)):
                    q, p = softmax(z[2, m] / 3), softmax(z[s, m] / 3)
                    expected[name] += (q * np.log(q / p)).sum() / 11
    assert {n: v.item() for n, v in terms(*inputs).items()} == pytest.approx(expected, rel=1e-10)


def test_no_dependence_on_the_number_of_triplets():
    *stacked, labels, other = random_inputs()
    twice = terms(*(torch.cat([x, x], dim=1) for x in stacked), labels.repeat(2), other.repeat(2))
    once = terms(*stacked, labels, other)
    assert {n: v.item() for n, v in twice.items()} == pytest.approx({n: v.item() for n, v in once.items()})


def test_the_half_label_may_be_softened_again():
    *_, logits, labels, other = random_inputs()
    expected = 0.0
    for stage in logits.numpy():
        for z, own, alien in zip(stage, labels, other, strict=True):
            target = softmax(np.eye(6)[[own, alien]].mean(0) / 3)
            assert target.max() < 0.2  # nearly uniform over 6 classes
            expected -= (target * np.log(softmax(z / 3))).sum() / 11
    assert mixed_loss(logits, labels, other, 3.0, True).item() == pytest.approx(expected, rel=1e-10)


def test_raw_logits_in_the_divergence_are_not_finite():
    """Why "softened" is the default: the published code's reading takes the logarithm of negative logits."""
    *_, logits, _, _ = random_inputs()
    assert shallow_kl(logits, 3.0, "raw", True).isnan()
    assert shallow_kl(logits, 3.0, "softened", True).isfinite()


@pytest.mark.parametrize(
    "loss", [lambda x, d: relation_loss(x[..., 0], d), lambda x, d: shallow_kl(x, 3.0, "softened", d)]
)
@pytest.mark.parametrize("detach", [True, False])
def test_the_deepest_is_a_target_only_if_detached(loss, detach):
    *_, logits, _, _ = random_inputs()
    (gradient,) = torch.autograd.grad(loss(logits.requires_grad_(), detach), logits)
    assert (gradient[:-1] != 0).any()
    assert (gradient[-1] == 0).all() == detach


def only(**weights):
    return {f"{name}_weight": weights.get(name, 0.0) for name in WEIGHTS}


@pytest.mark.parametrize("detach", [True, False])
def test_detaching_shields_the_deepest_stage_from_what_it_teaches(make, batch, detach):
    method = make("corsd", detach_deepest=detach, **only(relation=1.0, aux_kd=1.0, mixed_kd=1.0))
    losses = method.losses(batch(method))
    (losses["relation"] + losses["aux_kd"] + losses["mixed_kd"]).backward()

    def reached(module):
        return any(p.grad is not None and (p.grad != 0).any() for p in module.parameters())

    assert reached(method.student.layer1)
    assert all(reached(network) for network in method.relations[:-1])
    assert reached(method.relations[-1].relation) is not detach
    assert reached(method.relations[-1].auxiliary) is not detach
    assert reached(method.student.layer3) is not detach


@pytest.mark.parametrize(
    ("student", "image"), [("resnet8", (1, 8, 8)), ("resnet18", (3, 8, 8)), ("resnet8", (1, 1, 1))]
)
def test_relation_networks_have_the_defined_shape(make, student, image):
    method = make("corsd", student=student, image=image)
    shapes = method.stage_shapes()
    assert len(method.relations) == len(shapes)
    for stage, (network, shape) in enumerate(zip(method.relations, shapes, strict=True)):
        below = len(shapes) - 1 - stage
        assert len(network.trunk) == below
        assert all(c.bias is None for c in network.trunk.modules() if isinstance(c, torch.nn.Conv2d))
        out = network.trunk(torch.zeros(2, 2 * shape[0], *shape[1:]))
        side = shape[1]
        for _ in range(below):
            side = (side + 1) // 2
        assert out.shape == (2, 2 * shapes[-1][0], side, side)
        hidden = (2 if below else 4) * shapes[0][0]
        assert [m.out_features for m in network.relation if isinstance(m, torch.nn.Linear)] == [hidden, 1]
        score, logits = network(torch.randn(5, *shape), torch.randn(5, *shape))
        assert score.shape == (5,)
        assert ((score > 0) & (score < 1)).all()
        assert logits.shape == (5, 4)


def test_separable_blocks(make):
    block = make("corsd").relations[0].trunk[0]
    layers = [(m.kernel_size[0], m.stride[0], m.groups) for m in block if isinstance(m, torch.nn.Conv2d)]
    assert layers == [(3, 2, 32), (1, 1, 1), (3, 1, 32), (1, 1, 1)]
    assert block[-2].num_features == 64
    assert [type(m).__name__ for m in block] == ["Conv2d", "Conv2d", "BatchNorm2d", "ReLU"] * 2


def test_both_kinds_of_pair_go_through_in_one_pass(make, batch):
    method, seen = make("corsd"), []
    for network in method.relations:
        network.register_forward_hook(lambda _module, inputs, _output: seen.append([x.clone() for x in inputs]))
    one = batch(method, anchors=5)
    maps = method.student(one.images, features=True).stages  # training mode: the same batch, the same maps
    method.losses(one)
    assert len(seen) == len(maps)
    for (first, second), stage in zip(seen, maps, strict=True):
        anchor, positive, negative = stage.split(5)
        torch.testing.assert_close(first, torch.cat([anchor, anchor]))
        torch.testing.assert_close(second, torch.cat([positive, negative]))


def test_the_method_weighs_the_terms_of_its_networks(make, batch):
    method = make("corsd").eval()
    one = batch(method, anchors=5)
    out = method.student(one.images, features=True)
    scores, logits = zip(
        *(
            network(torch.cat([stage[:5], stage[:5]]), stage[5:])
            for network, stage in zip(method.relations, out.stages, strict=True)
        ),
        strict=True,
    )
    scores, logits = torch.stack(scores), torch.stack(logits)
    parts = terms(scores[:, :5], scores[:, 5:], logits[:, :5], logits[:, 5:], one.labels[:5], one.labels[10:])
    expected = {name: WEIGHTS[name] * part.item() for name, part in parts.items()}
    expected["ce"] = torch.nn.functional.cross_entropy(out.logits, one.labels).item()
    assert {name: loss.item() for name, loss in method.losses(one).items()} == pytest.approx(expected, rel=1e-5)


def test_with_all_weights_at_zero_it_is_cross_entropy_on_triplets(make, batch):
    method = make("corsd", **only())
    one = batch(method)
    losses = method.losses(one)
    assert list(losses) == ["ce"]
    assert len(one.images) == 18
    assert losses["ce"].item() == pytest.approx(make("ce").losses(one)["ce"].item(), rel=1e-6)


def test_label_smoothing_reaches_the_auxiliary_classifiers(make, batch):
    *_, logits, labels, _ = random_inputs()
    uniform = -logits.log_softmax(-1).mean(-1).mean(1).sum()
    expected = 0.7 * positive_loss(logits, labels, 0.0) + 0.3 * uniform
    torch.testing.assert_close(positive_loss(logits, labels, 0.3), expected)
    # Of the method: logits that are far from uniform are punished more.
    values = []
    for smoothing in (0.0, 0.3):
        method = make("corsd", label_smoothing=smoothing)
        for network in method.relations:
            torch.nn.init.normal_(network.auxiliary.weight, generator=torch.Generator().manual_seed(1))
        values.append(method.losses(batch(method))["aux_ce"].item())
    assert values[0] != pytest.approx(values[1], rel=0.01)


def test_raw_divergence_reaches_the_method(make, batch):
    method = make("corsd", kl="raw")
    assert not method.losses(batch(method))["aux_kd"].isfinite()


def test_sampling(make):
    """Classes of partners are tested with ClassIndex; here the order, and that the stream decides."""
    method = make("corsd", labels=[0, 1, 2, 3] * 6 + [4])
    labels = method.info.train_labels
    anchors = torch.tensor([24, 3, 7, 0, 11])
    drawn = method.sample(anchors, Streams(0))
    first, positives, negatives = drawn.split(5)
    assert torch.equal(first, anchors)
    assert torch.equal(labels[positives], labels[anchors])
    assert positives[0] == 24  # the only one of its class
    assert (positives[1:] != anchors[1:]).all()
    assert (labels[negatives] != labels[anchors]).all()
    assert torch.equal(method.sample(anchors, Streams(0)), drawn)
    assert any(not torch.equal(method.sample(anchors, Streams(seed)), drawn) for seed in (1, 2))
    assert CORSD.images_per_anchor == 3


def test_one_class_alone_is_refused(make):
    with pytest.raises(ValueError, match="at least two classes"):
        make("corsd", labels=[1] * 8)
