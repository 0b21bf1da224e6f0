"""What tests/run/test_group.py looks at, done by two processes together and by each alone: `python ranks.py FOLDER`.

The environment says which process this is; it leaves FOLDER/RANK.pt. Comparisons are the tests' business.
"""

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from kdbench.backbones import registry
from kdbench.config import bindings, settings, signature
from kdbench.config.schedules import Cosine
from kdbench.config.settings import SGD, Augment, Dataset, Machine, Measures, Settings, Split
from kdbench.data import task as task_
from kdbench.errors import RunError
from kdbench.method import Info, Teacher
from kdbench.plan import expand, request
from kdbench.run import execute
from kdbench.run.caller import Caller
from kdbench.run.checkpoint import weights_sha256
from kdbench.run.group import Group
from kdbench.run.loop.train import train
from kdbench.run.sync_bn import synchronise
from kdbench.streams import Streams

DIGITS = Dataset(source="digits", mean=(0.3,), std=(0.35,), mirrored=False)
METHODS = ("byot", "ce", "corsd", "crd", "kd", "rkd")
"""All others are in tests/contract/ranks.py, in one precision and batch size."""
CASES = [
    *((name, batch, "float64") for name in METHODS for batch in (16, 13)),
    *((name, 13, "float32") for name in METHODS),
    ("corsd", 16, "bfloat16"),
]
SHORT = [
    "dataset=digits",
    "student=resnet8",
    "teacher=resnet14",
    "Train.epochs=2",
    "Train.warmup=0",
    "Split.validation=0.1",
    "Measures.corruptions=False",
    "Measures.images=10",
]


def made(name, task, batch_size=16):
    """The method, its student and teacher freshly initialised, and its gin file's parameters; CORSD with a memory."""
    with Streams(0).as_global("init"):
        student, teacher = (registry.build(which, task.classes, 1) for which in ("resnet8", "resnet14"))
        info = Info(
            task.classes, task.train.labels, (1, 8, 8), 0.0, torch.device("cpu"), batch_size, 7, 2,
            network=lambda name, stream: registry.build(name or "resnet8", task.classes, 1),
        )  # fmt: skip
        trained_by = bindings.of_method(name).get("Teaching.method")
        taught = Teacher(
            teacher, method=around(trained_by.value, teacher, [Teacher(teacher)], info) if trained_by else None
        )
        return around(name, student, [taught], info)


def around(name, network, teachers, info):
    """A method or variant around a network, with its gin file's parameters."""
    source = bindings.method_source(name)
    cls = getattr(importlib.import_module(f"kdbench.methods.{source}"), signature.of_method(source).name)
    parameters = {b.parameter: b.value for b in bindings.of_method(name).values() if b.configurable == cls.__name__}
    if name == "corsd":
        parameters["class_memory_weight"] = 0.5
    return cls(network, teachers if cls.needs_teacher else [], info, **parameters)


@contextmanager
def precision(name):
    """In float64 rounding hides nothing. The harness says `.float()` where it wants no less than float32."""
    single = Tensor.float
    if name == "float64":
        Tensor.float = Tensor.double
    yield
    Tensor.float = single


def trajectory(folder, name, batch_size, dtype, group, sync_bn=True):
    """A few steps, over the end of a pass: this rank's part of each step's loss, and all state after the last."""
    task = task_.load(DIGITS, Split(validation=0.2, seed=0), None, torch.device("cpu"))
    autocast = "bfloat16" if dtype == "bfloat16" else "float32"
    recipe = settings.Train(1.3, batch_size, Cosine(final=0.0), 0.0, 0.1, autocast, 5.0)
    given = Settings(
        DIGITS, Split(0.0, 0), Augment(0.125, 0, True, 0.5), SGD(0.05, 0.9, 5e-4, False), recipe,
        Machine("cpu", 1, False, False, 60.0, group.size, ""), Measures((), False, 0, ()),
    )  # fmt: skip
    method = made(name, task, batch_size)
    if dtype == "float64":
        for module in (method, *(each for teacher in method.teachers for each in (teacher.network, teacher.method))):
            if module is not None:
                module.double()
    if sync_bn:
        synchronise(method, group)
    losses, images = [], []
    update, after_step = method.update, method.after_step

    def watched_update(terms, parts):
        losses.append(parts.loss.detach())
        update(terms, parts)

    def watched_step(batch):
        losses[-1] = batch.share.weighted(losses[-1])
        images.append(batch.index)
        after_step(batch)

    method.update, method.after_step = watched_update, watched_step
    with precision(dtype), Streams(0).as_global("training"):
        outcome = train(method, task, given, Streams(0), folder / f"{name}{group.rank}.csv", Caller(group=group))
    return SimpleNamespace(
        losses=torch.stack(losses), images=images,
        state=method.state_dict(), sha256=weights_sha256(method.state_dict()),
        seen=outcome.images_seen, validation=outcome.validation, best_epoch=outcome.best_epoch,
    )  # fmt: skip


def relational(x):
    """A loss that has to do with all pairs of rows and with their order."""
    return (torch.cdist(x, x + 1).sin() * torch.arange(len(x), dtype=x.dtype)).sum() + x.roll(1, 0).mul(
        x
    ).sum().square()


def gathered(group):
    """For 7 anchors with 3 images each: the whole batch again, and gradients in shares and in one piece."""
    whole = torch.randn(21, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (expected,) = torch.autograd.grad(relational(whole), whole)
    share = group.share(7)
    own = share.own(whole.detach()).clone().requires_grad_()
    share.weighted(relational(share.gather(own))).backward()
    integers = share.gather(share.own(torch.arange(21)))
    refused = caught(lambda: share.gather(own[1:]), ValueError)
    # The mean of means, and a sum, as the loop would add them up over the ranks.
    mean, total = share.mean(own.detach().mean()), group.sum(share.weighted(share.summed(own.detach().sum())))
    numbers = torch.stack([mean - whole.mean(), total - whole.sum()]).detach()
    return SimpleNamespace(
        found=own.grad, expected=share.own(expected), integers=integers, refused=refused, numbers=numbers
    )


def normalised(group, shape, dtype, momentum=0.1, offset=0.0):
    """Two batches through batch normalisation, in shares and in one piece: pairs (found, expected)."""
    kind = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    pairs = []
    plain, ours = (kind(shape[1], momentum=momentum, dtype=dtype) for _ in range(2))
    for each in (plain, ours):
        with torch.no_grad():
            each.weight.copy_(torch.linspace(0.5, 2, shape[1]))
            each.bias.copy_(torch.linspace(-1, 1, shape[1]))
    synchronise(ours, group)
    share = group.share(shape[0])
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        x, probe = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
        whole = (x + offset).requires_grad_()
        own = share.own(whole.detach()).clone().requires_grad_()
        y, y_whole = ours(own), plain(whole)
        for module, out, weights in ((ours, y, share.own(probe)), (plain, y_whole, probe)):
            module.zero_grad()
            (out.sin() * weights).sum().backward()
        pairs += [(y, share.own(y_whole)), (own.grad, share.own(whole.grad))]
        pairs += [(group.sum(getattr(ours, p).grad), getattr(plain, p).grad) for p in ("weight", "bias")]
    pairs += [(ours.state_dict()[name], value) for name, value in plain.state_dict().items()]
    pairs.append((ours.eval()(own), share.own(plain.eval()(whole))))
    return [(found.detach().clone(), expected.detach().clone()) for found, expected in pairs]


def caught(call, kind):
    try:
        call()
    except kind as error:
        return str(error)
    return None


def not_finite(folder, group):
    """A method whose loss breaks on the last rank only."""
    task = task_.load(DIGITS, Split(validation=0.0, seed=0), None, torch.device("cpu"))
    method = made("ce", task)
    inner = method.losses
    method.losses = lambda batch: {**inner(batch), "extra": torch.log(torch.tensor(0.5 - group.rank))}
    recipe = settings.Train(2.0, 16, Cosine(final=0.0), 0.0, 0.0, "float32", 0.0)
    given = Settings(
        DIGITS, Split(0.0, 0), Augment(0.0, 0, False, 0.0), SGD(0.05, 0.9, 0.0, False), recipe,
        Machine("cpu", 1, False, False, 60.0, group.size, ""), Measures((), False, 0, ()),
    )  # fmt: skip
    return caught(
        lambda: train(method, task, given, Streams(0), folder / f"bad{group.rank}.csv", Caller(group=group)), RunError
    )


def runs(folder, group, *words):
    return [
        execute.run(spec, folder, None, Caller(group=group)) for spec in expand.plan(request.parse([*SHORT, *words]))
    ]


def broken(*_):
    raise MemoryError("rank 1 has no memory left")


def main(folder):
    found = {}
    torch.set_num_threads(1)
    with Group.from_environment("auto" if not torch.cuda.is_available() else "cpu") as group:
        found["group"] = (group.rank, group.size, str(group.device))
        found["gather"] = gathered(group)
        found["normalise"] = {
            "2d": normalised(group, (7, 5, 3, 2), torch.float64),
            "1d": normalised(group, (5, 4), torch.float64),
            "cumulative": normalised(group, (7, 5, 3, 2), torch.float64, momentum=None),
            "float32 far from 0": normalised(group, (7, 5, 3, 2), torch.float32, offset=100.0),
        }
        found["unequal"] = caught(lambda: group.check_equal({"the same": 1, "the ranks": group.rank}), RunError)
        found["parts"] = {case: trajectory(folder, *case, group) for case in CASES}
        found["unsynchronised"] = trajectory(folder, "ce", 16, "float64", group, sync_bn=False)
        found["not finite"] = not_finite(folder, group)
        found["runs"] = runs(folder / "together", group, "gpus=2", "methods=kd")
        found["failed"] = runs(folder / "together", group, "gpus=2", "methods=corsd", "CORSD.kl=raw")
        mine = CASES[group.rank :: 2]
        found["whole"] = {case: trajectory(folder / "alone", *case, Group()) for case in mine}
        if group.first:
            found["alone"] = runs(folder / "alone", Group(), "methods=kd")
            found["few"] = runs(folder / "alone", Group(), "gpus=2", "methods=byot")
        else:
            execute.synchronise = broken
        found["broken"] = runs(folder / "together", group, "gpus=2", "methods=ce")
    torch.save(found, folder / f"{found['group'][0]}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
