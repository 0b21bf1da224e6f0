"""Speed of kdbench's loop against a bare and a conventional one: writes docs/performance.md.

    python tests/benchmarks/performance.py [--rounds 3] [--quick]

The three loops take turns in one process, so that other load on the machine meets all of them. Read the ratios, not the rates:
those are this machine's. A *bare* loop has the same modules, precision and batches, made before; it trains and does nothing else. A
*conventional* loop is what published code does: PIL images, transforms in two worker processes, contiguous float32, and the loss
read in each step.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kdbench import methods
from kdbench.backbones import registry
from kdbench.config import places, run_config, settings
from kdbench.data.augment import Augmenter
from kdbench.data.images import Images
from kdbench.data.task import SealedTest, Task
from kdbench.measures.cost import PeakMemory
from kdbench.method import Batch, Method
from kdbench.plan import expand, request
from kdbench.run.allocator import keep_freed_memory
from kdbench.run.evaluate import accuracy
from kdbench.run.loop.batches import passes_per_anchor, steps
from kdbench.run.loop.budget import Budget
from kdbench.run.loop.train import autocast, train
from kdbench.run.prepare import Ready, build
from kdbench.run.resume import dump
from kdbench.run.teacher import LoadedTeacher
from kdbench.store.provenance import cpu_model, instruction_set
from kdbench.streams import Streams

CPU, BATCH, CLASSES = torch.device("cpu"), 64, 100
PAIRS = [("resnet20", "resnet56"), ("resnet8x4", "resnet32x4")]
BASELINES = {"byot": ("ce", 1.25), "corsd": ("ce", 1.35), "rkd": ("kd", 1.1), "crd": ("kd", 1.25)}
"""The method whose cost another one's is compared with, and the largest ratio that it should have."""
DOCUMENT = Path(__file__).parents[2] / "docs/performance.md"


def made_up(count: int) -> Task:
    """Images like CIFAR-100's."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.arange(count) % CLASSES)
    return Task(images, Images(pixels[:0], images.labels[:0]), SealedTest(images), CLASSES, "")


class Bench:
    """A method on a pair of networks in one precision.

    Args:
        length: steps that a loop takes in one turn.
    """

    def __init__(self, name: str, student: str, teacher: str, precision: str, length: int):
        words = [
            f"methods={name}", "dataset=cifar100", f"student={student}", f"teacher={teacher}", "recipe=smoke",
            f"Train.batch_size={BATCH}", "Split.validation=0", "Train.warmup=0", f"Train.precision={precision}",
        ]  # fmt: skip
        (self.spec,) = (spec for spec in expand.plan(request.parse(words)) if not spec.is_teacher)
        cls = methods.load(self.spec.source)
        run_config.bind(run_config.trainable(self.spec.config, self.spec.id, self.spec.source))
        given = settings.from_gin()
        task = made_up(length * BATCH)
        teachers = [LoadedTeacher(registry.build(teacher, CLASSES), None, "", None)] if cls.needs_teacher else []
        self.ready = Ready(cls, given, CPU, PeakMemory(CPU), {}, task, tuple(teachers))

    def method(self) -> Method:
        for teacher in self.ready.teachers:
            teacher.to(CPU)  # channels last
        return build(self.spec, self.ready, Streams(0))

    def batches(self, method: Method) -> list[Batch]:
        """All batches of the loop, made before it."""
        given, task = self.ready.settings, self.ready.task
        budget = Budget(given.train, len(task.train), passes_per_anchor(method))
        return list(steps(method, task, Augmenter.of(task.train, given), Streams(0), budget))

    def real(self) -> float:
        """Images per second of kdbench's loop."""
        with tempfile.TemporaryDirectory() as folder:
            outcome = train(
                self.method(), self.ready.task, self.ready.settings, Streams(0), Path(folder) / "epochs.csv"
            )
        return outcome.images_seen / outcome.seconds

    def bare(self) -> float:
        """Images per second of the bare loop."""
        method = self.method().train()
        batches, mixed = self.batches(method), autocast(self.ready.settings.train, CPU)
        optimiser = torch.optim.SGD(_trained(method), lr=0.05, momentum=0.9, weight_decay=5e-4)
        began = time.perf_counter()
        for batch in batches:
            with mixed:
                loss = torch.stack(list(method.losses(batch).values())).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            method.after_step(batch)
        return sum(len(batch.images) for batch in batches) / (time.perf_counter() - began)

    def conventional(self) -> float:
        """Images per second of the conventional loop, from the second batch on."""
        method = self.method().to(memory_format=torch.contiguous_format).train()
        for teacher in method.teachers:
            teacher.network.to(memory_format=torch.contiguous_format)
        batches = self.batches(method)
        places = [batch.index.tolist() for batch in batches]
        loader = DataLoader(Pictures(self.ready.task.train), batch_sampler=places, num_workers=2)
        optimiser = torch.optim.SGD(_trained(method), lr=0.05, momentum=0.9, weight_decay=5e-4)
        began, count = 0.0, 0
        for batch, (images, labels) in zip(batches, loader, strict=True):
            count += len(images) if began else 0
            began = began or time.perf_counter()  # when the workers have started
            given = replace(batch, images=images, labels=labels)
            loss = torch.stack(list(method.losses(given).values())).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            method.after_step(given)
            loss.item()
        return count / (time.perf_counter() - began)


class Pictures(Dataset[Any]):
    """Images as torchvision's CIFAR-100 has them, with the usual augmentation."""

    def __init__(self, images: Images):
        self._pixels, self._labels = images.images.numpy(), images.labels.tolist()
        self._augment = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
                transforms.Normalize((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
            ]
        )  # fmt: skip

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        return self._augment(Image.fromarray(self._pixels[place])), self._labels[place]


def _trained(method: Method) -> list[torch.nn.Parameter]:
    return [p for p in method.parameters() if p.requires_grad]


class Rates(NamedTuple):
    """Medians over rounds: images per second of kdbench's loop, and its ratio to the other two."""

    real: float
    to_bare: float
    to_conventional: float


def measure(name: str, pair: tuple[str, str], precision: str, rounds: int, length: int) -> Rates:
    """The three loops in turn. The conventional one is always in float32."""
    bench, plain = (Bench(name, *pair, each, length) for each in (precision, "float32"))
    rows = []
    for _ in range(rounds):
        run_config.bind(run_config.trainable(bench.spec.config, bench.spec.id, bench.spec.source))
        rows.append((bench.real(), bench.bare(), plain.conventional()))
    real, bare, conventional = zip(*rows, strict=True)
    return Rates(
        statistics.median(real),
        statistics.median(a / b for a, b in zip(real, bare, strict=True)),
        statistics.median(a / c for a, c in zip(real, conventional, strict=True)),
    )


def seconds(call: Callable[[], object], rounds: int = 3) -> float:
    """The shortest of some times that a call takes."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def parts(rounds: int) -> list[tuple[str, str, str, bool]]:
    """What there is around the training: a name, its figure, the target, and whether the figure meets it."""
    bench = Bench("ce", "resnet20", "resnet20", "float32", length=32)
    given, task = bench.ready.settings, bench.ready.task
    augmenter, generator = Augmenter.of(task.train, given), torch.Generator().manual_seed(0)

    def augmented() -> None:
        for index in torch.arange(len(task.train)).split(BATCH):
            augmenter.views(index, [augmenter.draw(len(index), generator)], ["recipe"])

    method = bench.method()
    images = len(task.train)
    data = images / seconds(augmented, rounds)
    evaluation = images / seconds(lambda: accuracy(method.student, task.train, given.dataset), rounds)
    batch = bench.batches(method)[0].images
    forward = BATCH / seconds(lambda: method.student.train()(batch), 3 * rounds)
    state = {"method": method.state_dict(), "optimiser": [p.detach().clone() for p in method.parameters()]}
    checkpoint = seconds(lambda: dump(state), rounds)
    every = given.machine.checkpoint_every
    command = [sys.executable, "-m", "kdbench", "--help"]
    start = seconds(lambda: subprocess.run(command, check=True, capture_output=True), 2 * rounds)
    words = ["methods=all", "dataset=cifar100", "seeds=0-99", "Train.epochs=1,2"]
    count = len(expand.plan(request.parse(words)))
    plan = seconds(lambda: expand.plan(request.parse(words)), 1)
    return [
        ("augmented 32×32 images per second", f"{data:,.0f}", "≥ 25,000", data >= 25_000),
        ("evaluation, images per second over those of a training forward pass", f"{evaluation / forward:.2f}", "≥ 2",
         evaluation / forward >= 2),
        (f"state of a run made ready for the disk, share of the {every:g} s between two",
         f"{100 * checkpoint / every:.2f} %", "≤ 1 %", checkpoint / every <= 0.01),
        ("`kdbench --help`", f"{start:.2f} s", "≤ 0.3 s", start <= 0.3),
        (f"plan of {count:,} runs", f"{plan:.2f} s", "", True),
    ]  # fmt: skip


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---", *["--:"] * (len(head) - 1)], *rows]]
    return "\n".join(lines) + "\n"


def verdict(met: bool) -> str:
    return "met" if met else "**not met**"


def document(rounds: int, quick: bool) -> str:
    """The text of docs/performance.md; `quick` measures one pair and two methods, for a test of this program."""
    threads = torch.get_num_threads()
    text = [
        "# Performance\n",
        f"Made by `python tests/benchmarks/performance.py --rounds {rounds}` on {datetime.date.today()}: {cpu_model()}, "
        f"{instruction_set()}, {threads} threads, torch {torch.__version__}. Medians of {rounds} rounds, in which the loops take "
        "turns. Read the ratios: the rates are this machine's.\n",
        "*kdbench* is the loop that runs use. *bare* has the same modules, precision and batches, made before, and does nothing "
        "but train. *conventional* is what published code does: PIL images, transforms in two worker processes, contiguous "
        "float32, the loss read in each step.\n",
    ]
    names = ["ce", "kd"] if quick else sorted(places.sources(), key=lambda name: (name not in ("ce", "kd"), name))
    for pair, precision in itertools.product(PAIRS[: 1 if quick else None], ("float32", "bfloat16")):
        student, teacher = pair
        length = 2 if quick else 12 if student == "resnet20" else 5
        rates = {name: measure(name, pair, precision, rounds, length) for name in names}
        target = 1.25 if precision == "float32" else 2.2
        text.append(f"## {student} from {teacher}, {precision}, batch {BATCH}\n")
        head = ["method", "images/s", "over bare", f"≥ {1 / 1.03:.2f}", "over conventional", f"≥ {target}"]
        rows = []
        for name, each in rates.items():
            fast = verdict(each.to_bare >= 1 / 1.03), verdict(each.to_conventional >= target)
            rows.append(
                [name, f"{each.real:.0f}", f"{each.to_bare:.2f}", fast[0], f"{each.to_conventional:.2f}", fast[1]]
            )
        text.append(table(head, rows))
        costs = []
        for name, (base, most) in BASELINES.items():
            if name in rates:
                ratio = rates[base].real / rates[name].real
                costs.append([f"{name} over {base}", f"{ratio:.2f}", f"≤ {most}", verdict(ratio <= most)])
        if costs:
            text.append(table(["cost of an image", "ratio", "target", ""], costs))
    text.append("## Around the training\n")
    found = [[name, figure, target, verdict(met) if target else ""] for name, figure, target, met in parts(rounds)]
    text.append(table(["", "figure", "target", ""], found))
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one pair and two methods; prints, and writes nothing")
    given = parser.parse_args()
    keep_freed_memory()
    text = document(given.rounds, given.quick)
    if given.quick:
        print(text)
    else:
        DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
