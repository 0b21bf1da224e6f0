"""What every registered backbone offers besides logits, on images of 8 × 8 pixels, which are enough for four stages."""

import copy
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from kdbench.backbones.backbone import Backbone
from kdbench.backbones.copies import copy_of
from kdbench.backbones.registry import build
from kdbench.errors import UserError

EXTRAS = ("stem", "preactivations", "unpooled")
FAMILIES = (
    "resnet8", "resnet18", "wrn_16_1", "senet18", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2_x0_5",
    "densenet_40_12", "efficientnet_b0", "vit_tiny",
)  # fmt: skip
"""A small one of each; test_registry has the others."""
WITH_PREACTIVATIONS = tuple(name for name in FAMILIES if name != "vit_tiny")
NORMALISED_BY_THE_NEXT_STAGE = ("wrn_16_1", "senet18", "densenet_40_12")
"""Their pre-activations are computed beside what leads to the logits."""

every_backbone = pytest.mark.parametrize("name", FAMILIES)
with_preactivations = pytest.mark.parametrize("name", WITH_PREACTIVATIONS)
with_last_bn = pytest.mark.parametrize("name", [n for n in WITH_PREACTIVATIONS if n != "shufflenetv2_x0_5"])


def extras(name):
    return EXTRAS if name in WITH_PREACTIVATIONS else ("stem", "unpooled")


@cache
def _built(name):
    torch.manual_seed(0)
    network = build(name, classes=7)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):  # as after some training: each with statistics of its own
                module.weight.uniform_(0.2, 0.5)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    return network.eval()


def network_of(name):
    """A network of its own, quicker than to build one."""
    return copy_of(_built(name))


def images(count=3):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def equal(one, other):
    """Whether all tensors of two Features, or of two dictionaries of tensors, are the same bit for bit."""
    one, other = ([*x.values()] if isinstance(x, dict) else tensors(x) for x in (one, other))
    return len(one) == len(other) and all(map(torch.equal, one, other))


def tensors(out):
    return [out.logits, *out.stages, out.pooled, *([] if out.stem is None else [out.stem]), *out.preactivations]


@every_backbone
@torch.no_grad()
def test_all_that_is_computed_on_the_way_fits_together(name):
    network, x = _built(name), images()
    out = network(x, features=extras(name))
    last = len(out.stages)
    assert torch.equal(network(x), out.logits)
    assert torch.equal(network.stem(x), out.stem)
    assert equal(network(x, features=True), out._replace(stem=None, preactivations=()))
    assert all((before < 0).any() for before in out.preactivations)
    assert network.signed_maps == any((stage < 0).any() for stage in out.stages)
    if not network.signed_maps:
        assert equal(dict(enumerate(out.stages)), dict(enumerate(map(F.relu, out.preactivations))))
    assert torch.equal(out.unpooled.mean(dim=(2, 3)), out.pooled)
    assert torch.equal(network.classify(out.pooled), out.logits)
    assert torch.equal(network.classify(out.stages[-1]), out.logits)
    for first, entering in enumerate([out.stem, *out.stages]):
        rest = network.run_from(first, entering)
        assert equal(rest, out._replace(stages=out.stages[first:], stem=None, preactivations=()))
    assert equal(network.run_from(-1, out.stages[-2]), network.run_from(last - 1, out.stages[-2]))


@every_backbone
def test_extras_leave_training_as_it_is(name):
    """Outputs, running statistics and gradients, with and without extras."""
    results = []
    for features in (False, True, extras(name)):
        network = network_of(name).train()
        out = network(images(), features=features)
        logits = out if features is False else out.logits
        F.cross_entropy(logits, torch.arange(3)).backward()
        gradients = {n: p.grad for n, p in network.named_parameters()}
        results.append(({"logits": logits}, dict(network.named_buffers()), gradients))
    for other in results[1:]:
        assert all(map(equal, results[0], other))


@with_preactivations
def test_the_gradient_passes_through_preactivations(name):
    network = network_of(name).train()
    out = network(images(), features=EXTRAS)
    for before in out.preactivations:
        before.retain_grad()
    sum(before.square().sum() for before in out.preactivations).backward(retain_graph=True)
    if name != "shufflenetv2_x0_5":
        for stage in range(len(out.stages)):
            assert (network.last_bn(stage).weight.grad != 0).any()
    assert network.fc.weight.grad is None
    if name in NORMALISED_BY_THE_NEXT_STAGE:
        return
    for before in out.preactivations:
        before.grad = None
    out.logits.sum().backward()  # the logits are computed from these very maps
    assert all((before.grad != 0).any() for before in out.preactivations)


@with_last_bn
@torch.no_grad()
def test_the_last_batch_normalisation_moves_the_preactivation(name):
    """Its bias is added to the map right before the last ReLU, and to nothing before."""
    network = network_of(name)
    for stage in range(len(network.stage_modules())):
        before = network(images(), features=EXTRAS).preactivations
        network.last_bn(stage).bias += 1
        after = network(images(), features=EXTRAS).preactivations
        assert equal(dict(enumerate(before[:stage])), dict(enumerate(after[:stage])))
        torch.testing.assert_close(before[stage] + 1, after[stage])


@every_backbone
def test_a_frozen_classifier_lets_the_gradient_through(name):
    network = network_of(name).requires_grad_(False)
    channels = network.fc.in_features
    if network.neck_modules():
        deepest = network(images(), features=True).stages[-1].requires_grad_()
        network.classify(deepest).sum().backward()
        assert (deepest.grad != 0).any()
    for shape in [(2, channels)] if network.neck_modules() else [(2, channels), (2, channels, 3, 3)]:
        x = torch.randn(shape, requires_grad=True)
        network.classify(x).sum().backward()
        expected = network.fc.weight.sum(0) / (1 if len(shape) == 2 else 9)
        torch.testing.assert_close(x.grad, expected.view(1, -1, *[1] * (len(shape) - 2)).expand(shape))
    assert all(p.grad is None for p in network.parameters())


@every_backbone
def test_fresh_stages_are_the_same_architecture_with_other_weights(name):
    network = network_of(name)
    x = network(images(), features=True).stages[0]
    state = copy.deepcopy(network.state_dict())
    torch.manual_seed(1)
    one = network.fresh_stages(1)
    torch.manual_seed(1)
    same = network.fresh_stages(1)
    assert not {p.data_ptr() for p in network.parameters()} & {p.data_ptr() for p in one.parameters()}
    rest = {
        **{f"stages.{i}.{n}": v for i, m in enumerate(network.stage_modules()[1:]) for n, v in m.state_dict().items()},
        **{f"neck.{i}.{n}": v for i, m in enumerate(network.neck_modules()) for n, v in m.state_dict().items()},
        **{f"fc.{n}": v for n, v in network.fc.state_dict().items()},
    }
    assert {n: v.shape for n, v in one.state_dict().items()} == {n: v.shape for n, v in rest.items()}
    assert equal(one.state_dict(), same.state_dict())
    for key, value in one.named_parameters():
        if value.dim() > 1:  # a convolution or the classifier
            assert not torch.equal(value, rest[key])
    out = one(x.detach())
    assert [y.shape for y in out.stages] == [y.shape for y in network.run_from(1, x).stages]
    out.logits.sum().backward()
    assert all(p.grad is not None for p in one.parameters())
    assert equal(network.state_dict(), state), "running statistics are its own too"
    one.load_state_dict(rest)
    assert equal(one.eval()(x), network.run_from(1, x)), "the same computation"


@every_backbone
def test_a_fresh_copy_is_drawn_as_the_network_was(name):
    network = network_of(name)  # a copy, in evaluation mode, of other weights
    torch.manual_seed(2)
    built = build(name, classes=7)
    torch.manual_seed(2)
    fresh = network.fresh_copy()
    assert type(fresh) is type(network)
    assert all(m.training for m in fresh.modules())
    assert list(fresh.state_dict()) == list(network.state_dict())
    assert equal(fresh.state_dict(), built.state_dict())
    assert not torch.equal(fresh.fc.weight, network.fc.weight)


@with_preactivations
def test_batch_statistics_are_those_of_training_and_leave_no_trace(name):
    network, trained = network_of(name), network_of(name).train()
    next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d)).train()
    modes = [m.training for m in network.modules()]
    state = copy.deepcopy(network.state_dict())
    with network.batch_statistics():
        assert not network.training
        out = network(images(), features=EXTRAS)
    assert equal(out, trained(images(), features=EXTRAS))
    assert equal(network.state_dict(), state)
    assert [m.training for m in network.modules()] == modes
    assert not equal(network.eval()(images(), features=EXTRAS), out)


def test_batch_statistics_end_with_an_error_too():
    network = network_of("resnet8")
    with pytest.raises(ZeroDivisionError), network.batch_statistics():
        raise ZeroDivisionError
    assert not any(m.training for m in network.modules())
    network.train()(images())
    assert network.bn1.num_batches_tracked == 1


def test_gradients_pass_through_batch_statistics():
    network = network_of("resnet8").requires_grad_(False)
    x = images().requires_grad_()
    with network.batch_statistics():
        first, second = network(x), network(2 * x)
    (first + second).sum().backward()
    assert (x.grad != 0).any()


class Operations(TorchDispatchMode):
    """Counts what torch computes."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func))
        return func(*args, **(kwargs or {}))


@every_backbone
@torch.no_grad()
def test_features_cost_nothing(name):
    network = _built(name)
    operations, flops = {}, {}
    for features in (False, True, ("stem",), extras(name)):
        with FlopCounterMode(display=False) as counter:
            network(images(), features=features)
        flops[features] = counter.get_total_flops()
        with Operations() as counted:
            network(images(), features=features)
        operations[features] = counted.names
    assert len(set(flops.values())) == 1
    assert operations[False] == operations[True] == operations["stem",]
    if name not in NORMALISED_BY_THE_NEXT_STAGE:
        assert len(operations[extras(name)]) == len(operations[False])


@every_backbone
def test_under_autocast_and_channels_last(name):
    network = network_of(name).to(memory_format=torch.channels_last)
    x = images().to(memory_format=torch.channels_last)
    for training in (False, True):
        network.train(training)
        twin = copy.deepcopy(network)
        with torch.autocast("cpu", torch.bfloat16):
            out = network(x, features=extras(name))
            assert equal(twin(x, features=True), out._replace(stem=None, preactivations=()))
            assert torch.equal(network.classify(out.stages[-1]), out.logits)
        assert {y.dtype for y in out.preactivations} <= {torch.bfloat16}
        assert out.logits.dtype == out.pooled.dtype == torch.float32
        if network.signed_maps:
            assert any((stage < 0).any() for stage in out.stages)
        else:
            assert equal(dict(enumerate(out.stages)), dict(enumerate(map(F.relu, out.preactivations))))
        if not name.startswith("shufflenet"):  # whose channels are copied in another order
            assert all(y.is_contiguous(memory_format=torch.channels_last) for y in out.preactivations)
        (out.logits.sum() + sum(y.float().mean() for y in out.preactivations)).backward()
    network.eval()
    with torch.autocast("cpu", torch.bfloat16):
        out = network(x, features=extras(name))
        assert torch.equal(network.run_from(1, out.stages[0]).logits, out.logits)


@pytest.fixture
def compiler():
    """Without what was compiled before: torch gives up on a function after eight times."""
    torch._dynamo.reset()
    yield {"backend": "aot_eager", "fullgraph": True}  # all of compiling but the slow part, to generate code
    torch._dynamo.reset()


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["resnet8"])
def test_preactivations_of_a_compiled_network(name, compiler):
    network = network_of(name).train()
    plain = copy.deepcopy(network)
    network.compile(**compiler)
    out, expected = (each(images(), features=EXTRAS) for each in (network, plain))
    for one, other in zip(tensors(out), tensors(expected), strict=True):
        torch.testing.assert_close(one, other)
    for each in (out, expected):
        sum(y.mean() for y in [*each.preactivations, each.logits]).backward()
    for one, other in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.exhaustive
@torch.no_grad()
def test_a_compiled_network_offers_the_rest_too(compiler):
    network, plain = network_of("resnet8"), network_of("resnet8")
    network.compile(**compiler)
    torch.testing.assert_close(network(images()), plain(images()))
    with network.batch_statistics():
        inside = network(images())
    torch.testing.assert_close(network(images()), plain(images()))
    torch.testing.assert_close(copy.deepcopy(network)(images()), plain(images()))
    torch.testing.assert_close(inside, copy.deepcopy(plain).train()(images()))
    stem = network.stem(images())
    assert equal(network.run_from(0, stem), plain.run_from(0, stem))
    assert network.fresh_copy()(images()).shape == network.fresh_stages(0)(stem).logits.shape


def test_whole_images_pass_through_forward_alone():
    """So that counting there counts every image that a method computes, and nothing else."""
    network = network_of("resnet8")
    out = network(images(), features=EXTRAS)
    network.register_forward_pre_hook(lambda *_: pytest.fail("forward was called"))
    network.run_from(1, out.stages[0])
    network.classify(out.pooled)
    network.stage_shapes((3, 8, 8))
    network.fresh_stages(2)(out.stages[1])


def test_an_unknown_feature_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="unknown feature 'preactivation'; did you mean 'preactivations'"):
        network_of("resnet8")(images(), features=("preactivation",))


def test_a_backbone_needs_no_preactivations_for_the_rest():
    class Plain(Backbone):
        def __init__(self, width, *, classes):
            super().__init__()
            self.conv = nn.Conv2d(3, width, 1)
            self.stage = nn.Sequential(nn.Conv2d(width, width, 3), nn.ReLU())
            self.fc = nn.Linear(width, classes)

        def stem(self, images):
            return self.conv(images)

        def stage_modules(self):
            return (self.stage,)

    network = Plain(4, classes=5)
    out = network(images(), features=("stem",))
    assert network.fresh_copy().fc.weight.shape == (5, 4)
    assert network.fresh_stages(0)(out.stem).logits.shape == (3, 5)
    with pytest.raises(UserError, match="Plain does not offer pre-activation maps"):
        network(images(), features=EXTRAS)
    with pytest.raises(UserError, match="Plain does not offer the last batch normalisation"):
        network.last_bn(0)


@every_backbone
def test_the_body_is_the_network_without_its_classifier_and_shares_its_weights(name):
    network = network_of(name)
    body = network.body()
    x, passed = images(), network.images_passed
    with torch.no_grad():
        assert torch.equal(body(x), network(x, features=True).stages[-1])
    assert network.images_passed - passed == 2 * len(x)
    behind = {
        id(part)
        for module in (network.fc, *network.neck_modules())
        for part in module.state_dict(keep_vars=True).values()
    }
    state = network.state_dict(keep_vars=True)
    assert body.state_dict().keys() == {name for name, value in state.items() if id(value) not in behind}
    own = {id(parameter) for parameter in network.parameters()} - behind
    assert {id(parameter) for parameter in body.parameters()} == own
    assert not any(module.training for module in body.eval().modules())
    assert body.train().training
    assert all(stage.training for stage in network.stage_modules())


def test_a_copy_of_a_body_is_of_a_copied_network():
    body = network_of("resnet8").body()
    other = copy.deepcopy(body)
    with torch.no_grad():
        next(other.parameters()).zero_()
        assert not torch.equal(body(images()), other(images()))
