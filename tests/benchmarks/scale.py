"""How speed and memory of training change with threads, runs at once, batch size and classes.

python tests/benchmarks/scale.py NAME    # prints images per second and peak memory in bytes of one method, for `sections`
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence

import torch
from loops import CPU, Bench

from kdbench.measures.cost import PeakMemory
from kdbench.run.allocator import keep_freed_memory

PAIR = ("resnet20", "resnet56")
BATCHES, CLASSES = (32, 64, 128, 256), (10, 100, 1000)


def median_rate(bench: Bench) -> float:
    """Images per second of the median block of kdbench's loop."""
    return statistics.median(rate for (rate,) in bench.real())


def process(
    name: str, threads: int, batch: int = 64, length: int = 8, words: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """A process of its own that trains a method; `words` are further ones of the command line below."""
    command = [sys.executable, __file__, name, "--batch", str(batch), "--steps", str(length), *words]
    variables = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables)


def figures(processes: Sequence[subprocess.Popen[str]]) -> tuple[float, int]:
    """Images per second of some processes together, and the largest peak memory in bytes.

    Raises:
        RuntimeError: one of them failed.
    """
    outputs = [each.communicate()[0].split() for each in processes]
    if any(each.returncode for each in processes):
        raise RuntimeError("a process that was measured failed")
    return sum(float(rate) for rate, _ in outputs), max(int(peak) for _, peak in outputs)


def threads_and_runs(length: int) -> str:
    """The table of images/s with one and two threads, and of two runs at once."""
    ways = {"1 run, 1 thread": (1, 1), "1 run, 2 threads": (1, 2), "2 runs, 1 thread each": (2, 1)}
    lines = ["| | images/s together | to one thread |", "| --- | --: | --: |"]
    first = 0.0
    for way, (runs, threads) in ways.items():
        rate, _ = figures([process("kd", threads, length=length) for _ in range(runs)])
        first = first or rate
        lines.append(f"| {way} | {rate:.0f} | {rate / first:.2f} |")
    return f"## Threads and runs at once: kd, {PAIR[0]} from {PAIR[1]}\n\n" + "\n".join(lines) + "\n"


def memory(names: Sequence[str]) -> str:
    """The table of peak memory; of a process each, because freed memory stays with a process."""
    sizes = (64, 256)
    lines = [
        "| method | " + " | ".join(f"batch {size}, MiB" for size in sizes) + " |",
        "| --- |" + " --: |" * len(sizes),
    ]
    for name in names:
        peaks = [figures([process(name, torch.get_num_threads(), size, 1)])[1] / 2**20 for size in sizes]
        lines.append(f"| {name} | " + " | ".join(f"{peak:.0f}" for peak in peaks) + " |")
    title = "## Peak resident memory, interpreter and 50,000 images (146 MiB) included"
    return title + "\n\n" + "\n".join(lines) + "\n"


def costs(names: Sequence[str], rounds: int, what: str, values: Sequence[int]) -> str:
    """The table of each method's cost of an image over that of ce, for each batch size or number of classes."""
    lines = [
        "| method | " + " | ".join(f"{value} {what}" for value in values) + " |",
        "| --- |" + " --: |" * len(values),
    ]
    cells: dict[str, list[str]] = {name: [] for name in names}
    for value in values:
        given = {"batch": value} if what == "images" else {"classes": value}
        benches = {name: Bench(name, PAIR, "float32", length=2, **given) for name in ("ce", *names)}
        ratios: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(min(rounds, 2)):
            rates = {name: median_rate(bench) for name, bench in benches.items()}
            for name in names:
                ratios[name].append(rates["ce"] / rates[name])
        for name in names:
            cells[name].append(f"{statistics.median(ratios[name]):.2f}")
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(row) + " |" for name, row in cells.items())]) + "\n"


def sections(names: Sequence[str], rounds: int, length: int) -> Iterator[str]:
    """What docs/performance.md says about scale."""
    others = [name for name in names if name != "ce"]
    yield threads_and_runs(length)
    yield memory(names)
    yield f"## Cost of an image over ce's: {PAIR[0]} from {PAIR[1]}, float32\n"
    yield costs(others, rounds, "images", BATCHES)
    yield costs(others, rounds, "classes", CLASSES)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8, help="blocks that are timed")
    parser.add_argument("--block", type=int, default=1, help="steps of a block")
    parser.add_argument("--pair", nargs=2, default=PAIR, metavar=("STUDENT", "TEACHER"))
    parser.add_argument("--device", type=torch.device, default=CPU)
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]) if "OMP_NUM_THREADS" in os.environ else 2)
    keep_freed_memory()
    pair = (given.pair[0], given.pair[1])
    bench = Bench(given.name, pair, "float32", given.steps, given.batch, device=given.device, block=given.block)
    peak = PeakMemory(given.device)
    print(median_rate(bench), peak.bytes())


if __name__ == "__main__":
    main()
