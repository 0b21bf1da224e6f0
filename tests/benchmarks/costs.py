"""CPU time of each method's step over that of the baseline, and the memory that it takes: prints a table.

    python tests/benchmarks/costs.py [NAME …] [--steps 6]

Each method has a process of its own, in which its steps and the baseline's take turns. Images are like CIFAR-100's, 64 a step.
Read the ratios and the memory, which are nearly the same everywhere.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from loops import CPU, Bench
from tables import table

from kdbench.config import BASELINE, places
from kdbench.measures.cost import PeakMemory
from kdbench.method import Batch, Method

PAIR = ("resnet8x4", "resnet32x4")
LIMIT = 2048
"""MiB that a step may take."""


def seconds(method: Method, losses: Callable[[Batch], dict[str, torch.Tensor]], batch: Batch) -> float:
    """CPU time of a forward and a backward pass, which other processes on the machine hardly change."""
    began = time.process_time()
    method.zero_grad()
    torch.stack(list(losses(batch).values())).sum().backward()
    with torch.no_grad():
        method.after_step(batch)
    return time.process_time() - began


def figures(name: str, steps: int) -> Iterator[tuple[str, float, float]]:
    """Of each phase of a method: its name, the median ratio of a step's time, and the MiB that a step takes."""
    bench, plain = (Bench(each, PAIR, "float32", steps) for each in (name, BASELINE))
    baseline, method = plain.method(), bench.method()
    batches, of_baseline = list(bench.batches(method)), list(plain.batches(baseline))
    for phase in method.phases():
        losses = phase.losses or method.losses
        peak = PeakMemory(CPU)
        before = peak.bytes()
        seconds(method, losses, batches[0])
        memory = (peak.bytes() - before) / 2**20
        ratios = [
            seconds(method, losses, ours) / seconds(baseline, baseline.losses, theirs)
            for ours, theirs in zip(batches[1:], of_baseline[1:], strict=True)
        ]
        label = name if len(method.phases()) == 1 else f"{name}, {phase.name}"
        yield label, statistics.median(ratios[1:]), memory


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="methods (default: all)")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--here", action="store_true", help="measure in this process, and print figures alone")
    given = parser.parse_args()
    names = given.names or sorted(places.sources(), key=lambda name: (name != BASELINE, name))
    if given.here:
        torch.set_num_threads(1)  # several that wait for one another use CPU time as well
        for name in names:
            for label, ratio, memory in figures(name, given.steps):
                print(label, ratio, memory, sep="\t")
        return
    head = ["method", f"step over {BASELINE}'s", "MiB of a step", ""]
    print(table(head, []), end="", flush=True)
    failed = []
    for name in names:
        command = [sys.executable, __file__, name, "--here", "--steps", str(given.steps)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line and not line.startswith(" ")]  # gin adds others
            failed.append(f"{name}: {lines[-1] if lines else f'exit status {done.returncode}'}")
        for label, ratio, memory in (line.split("\t") for line in done.stdout.splitlines()):
            within = "" if float(memory) <= LIMIT else f"over {LIMIT}"
            row = [label, f"{float(ratio):.2f}", f"{float(memory):.0f}", within]
            print(f"| {' | '.join(row)} |", flush=True)  # at once: the others take a while
    if failed:
        raise SystemExit("\n".join(["these cannot be measured:", *failed]))


if __name__ == "__main__":
    main()
