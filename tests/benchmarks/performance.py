"""Speed of kdbench's loop against a bare and a conventional one: writes docs/performance.md.

    python tests/benchmarks/performance.py [--rounds 2] [--steps 6] [--quick]

The three loops (tests/benchmarks/loops.py) take turns in one process, so that other load on the machine meets all of them. Read
the ratios, not the rates: those are this machine's.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import profiles
import scale
import test_board
import torch
from loops import Bench, made_up
from tables import spread, table

from kdbench.config import places
from kdbench.config.processor import cpu_precision
from kdbench.data.augment import Augmenter
from kdbench.files import write_atomically
from kdbench.launch.slurm.submission import Submission
from kdbench.plan import expand, request
from kdbench.report.leaderboard import regenerate
from kdbench.run.allocator import keep_freed_memory
from kdbench.run.evaluate import accuracy
from kdbench.run.resume import dump
from kdbench.store.provenance import cpu_model, instruction_set

BATCH = 64
PAIRS = [("resnet20", "resnet56"), ("resnet8x4", "resnet32x4")]
TO_BARE = 1 / 1.03
TO_CONVENTIONAL = {"float32": 1.25, "bfloat16": 2.2}
COSTS = {"corsd": ("ce", 1.35), "byot": ("ce", 1.25), "rkd": ("kd", 1.1), "crd": ("kd", 1.25)}
"""The method whose cost another one's is compared with, and the largest ratio that it should have."""
BOARD = 300
UNMEASURED = ["Measures.corruptions=False", "Measures.noise=()"]
DOCUMENT = Path(__file__).parents[2] / "docs/performance.md"


class Rates(NamedTuple):
    """What was measured in each step.

    Attributes:
        real: images per second of kdbench's loop.
        to_bare, to_conventional: its ratio to the other loops.
        cost: that of an image over one of the method in COSTS, both in bare loops; empty for a method that is not there.
    """

    real: list[float]
    to_bare: list[float]
    to_conventional: list[float]
    cost: list[float]


def measure(name: str, pair: tuple[str, str], precision: str, rounds: int, length: int) -> Rates:
    """The loops take turns after every step. The conventional one is always in float32."""
    bench, plain = Bench(name, pair, precision, length), Bench(name, pair, "float32", length)
    base = Bench(COSTS[name][0], pair, precision, length) if name in COSTS else None
    rates = Rates([], [], [], [])
    for _ in range(rounds):
        others = [bench.bare(), plain.conventional(), *([base.bare()] if base else [])]
        for real, bare, conventional, *of_base in bench.real(others):
            rates.real.append(real)
            rates.to_bare.append(real / bare)
            rates.to_conventional.append(real / conventional)
            rates.cost.extend(each / bare for each in of_base)
    return rates


def seconds(call: Callable[[], object], rounds: int = 3) -> float:
    """The shortest of some times that a call takes, behind one that warms up."""
    times = []
    for _ in range(1 + rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times[1:])


def verdict(met: bool) -> str:
    return "met" if met else "**not met**"


def training(names: Sequence[str], pair: tuple[str, str], precision: str, rounds: int, length: int) -> str:
    """The tables of one pair in one precision."""
    rates = {name: measure(name, pair, precision, rounds, length) for name in names}
    target = TO_CONVENTIONAL[precision]
    rows = []
    for name, each in rates.items():
        fast = (
            verdict(statistics.median(each.to_bare) >= TO_BARE),
            verdict(statistics.median(each.to_conventional) >= target),
        )
        real = f"{statistics.median(each.real):.0f}"
        rows.append([name, real, spread(each.to_bare), fast[0], spread(each.to_conventional), fast[1]])
    head = ["method", "images/s", "to bare", f"≥ {TO_BARE:.2f}", "to conventional", f"≥ {target}"]
    return f"## {pair[0]} from {pair[1]}, {precision}, batch {BATCH}\n\n{table(head, rows)}\n{costs(rates)}"


def costs(rates: dict[str, Rates]) -> str:
    """The table of the costs of an image."""
    rows = [
        [
            f"{name} over {base}",
            spread(rates[name].cost),
            f"≤ {most}",
            verdict(statistics.median(rates[name].cost) <= most),
        ]
        for name, (base, most) in COSTS.items()
        if name in rates
    ]
    return table(["cost of an image", "ratio", "target", ""], rows) if rows else ""


def parts(rounds: int) -> str:
    """The table of what there is around the training."""
    bench = Bench("ce", ("resnet20", "resnet56"), "float32", length=1)
    given, task = bench.ready.settings, made_up(count=2048)
    augmenter, generator = Augmenter.of(task.train, given), torch.Generator().manual_seed(0)

    def augmented() -> None:
        for index in torch.arange(len(task.train)).split(BATCH):
            augmenter.views(index, [augmenter.draw(len(index), generator)], ["recipe"])

    method = bench.method()
    batch = next(bench.batches(method)).images
    data = len(task.train) / seconds(augmented, rounds)
    evaluation = len(task.train) / seconds(lambda: accuracy(method.student, task.train, given.dataset), rounds)
    to_forward = evaluation / (BATCH / seconds(lambda: method.student.train()(batch), 5 * rounds))
    state = {"method": method.state_dict(), "optimiser": [p.detach().clone() for p in method.parameters()]}
    every = given.machine.checkpoint_every

    def start(*arguments: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True), rounds)

    help_, import_ = start("-m", "kdbench", "--help"), start("-c", "import kdbench")
    words = ["methods=ce,kd,byot,corsd,crd", "dataset=cifar100", "seeds=0-99", "Train.epochs=1,2"]
    specs = expand.plan(request.parse(words))
    plan = seconds(lambda: expand.plan(request.parse(words)), 1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        checkpoint = seconds(lambda: write_atomically(folder / "resume.pt", dump(state)), rounds) / every
        profile = request.parse([*words, "executor=slurm"]).profile
        jobs = seconds(lambda: Submission(specs, folder, profile, {}).arrays, 1)
        for number in range(BOARD):
            test_board.write(folder / "runs", number)
        outs = itertools.count()
        board = seconds(lambda: regenerate(folder / "runs", folder / str(next(outs))), 1)
        shortest = seconds(lambda: one_step(folder / f"of a run {next(outs)}"), 1)
    rows = [
        ["augmented 32×32 images per second", f"{data:,.0f}", "≥ 25,000", verdict(data >= 25_000)],
        ["evaluation, images per second over those of a training forward pass", f"{to_forward:.2f}", "≥ 2",
         verdict(to_forward >= 2)],
        [f"state of a run written to the disk, share of the {every:g} s between two", f"{100 * checkpoint:.2f} %",
         "≤ 1 %", verdict(checkpoint <= 0.01)],
        ["`kdbench --help`", f"{help_:.2f} s", "≤ 0.3 s", verdict(help_ <= 0.3)],
        ["`import kdbench`", f"{import_:.2f} s", "", ""],
        [f"plan of {len(specs):,} runs", f"{plan:.2f} s", "", ""],
        [f"arrays of SLURM jobs for {len(specs):,} runs, without sbatch", f"{jobs:.2f} s", "", ""],
        [f"leaderboard of {BOARD} runs, first time", f"{board:.2f} s", "", ""],
        ["a command that trains for one step on digits, all of it", f"{shortest:.2f} s", "", ""],
    ]  # fmt: skip
    return "## Around the training\n\n" + table(["", "figure", "target", ""], rows)


def one_step(runs: Path) -> None:
    """A run of a single step, in a process of its own."""
    words = ["methods=ce", "dataset=digits", "Train.epochs=1", "Train.warmup=0", "Train.batch_size=90", *UNMEASURED]
    command = [sys.executable, "-m", "kdbench", "run", *words, "--runs", str(runs)]
    subprocess.run(command, check=True, capture_output=True)


def sections(rounds: int, length: int, quick: bool) -> Iterator[str]:
    """The sections of docs/performance.md, each as soon as it is measured.

    Args:
        quick: measure one small pair and two methods, for a test of this program.
    """
    load, options = os.getloadavg()[0], " --quick" if quick else f" --rounds {rounds} --steps {length}"
    yield (
        f"# Performance\n\nMade by `python tests/benchmarks/performance.py{options}` on {datetime.date.today()}: "
        f"{cpu_model()}, {instruction_set()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}; load average {load:.1f} at its start.\n\n"
        "*kdbench* is the loop that runs use, and images/s are its images. *Bare* has the same modules, precision and batches, "
        "made before, and does nothing but train. *Conventional* is what published code does: PIL images, transforms in two "
        "worker processes, contiguous float32, the losses read in each step. The loops take turns after every step. A ratio is "
        f"the median of {rounds * length} pairs of steps, with quartiles. A target is met if the median meets it. "
        "Read the ratios: the rates are this machine's.\n"
    )
    if quick:
        yield training(["ce", "kd"], ("resnet8", "resnet20"), "float32", rounds, length)
        yield parts(rounds)
        return
    names = sorted(places.sources(), key=lambda name: (name not in ("ce", "kd"), name))
    choice = cpu_precision()
    precisions = ["float32", *(["bfloat16"] if choice.precision == "bfloat16" else [])]
    yield parts(rounds)
    for pair in PAIRS:
        for precision in precisions:
            yield training(names, pair, precision, rounds, length)
    if len(precisions) == 1:
        yield f"bfloat16 was not measured: {choice.reason}.\n"
    yield from scale.sections(names, rounds, length)
    for precision in precisions:
        yield profiles.section(sorted(COSTS), PAIRS[0], precision, length)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6, help="steps that a loop times in one round")
    parser.add_argument(
        "--quick", action="store_true", help="one small pair, two methods, one step; prints, and writes nothing"
    )
    parser.add_argument("--parts", action="store_true", help="print what is around the training, and write nothing")
    given = parser.parse_args()
    keep_freed_memory()
    if given.parts:
        print(parts(given.rounds))
        return
    if given.quick:
        print("\n".join(sections(1, 1, quick=True)))
        return
    made: list[str] = []
    for section in sections(given.rounds, given.steps, quick=False):
        made.append(section)
        DOCUMENT.write_text("\n".join(made), encoding="utf-8")  # what an interruption leaves can be used


if __name__ == "__main__":
    main()
