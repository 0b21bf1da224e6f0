"""Speed of kdbench's loop on a GPU, against a bare and a conventional one: prints docs/performance-gpu.md.

    python tests/benchmarks/on_gpu.py > docs/performance-gpu.md

The loops take turns in blocks of steps, because waiting for the GPU after each step would slow them down.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import sys
from collections.abc import Iterator, Sequence

import scale
import torch
from loops import Bench
from tables import spread, table

from kdbench.config import places
from kdbench.run.allocator import keep_freed_memory
from kdbench.store.provenance import cpu_model

BATCH = 64
PAIRS = [("resnet20", "resnet56"), ("resnet8x4", "resnet32x4"), ("resnet18", "resnet34")]
COMPILED = ["False", "True", "reduce-overhead"]


def training(names: Sequence[str], pair: tuple[str, str], device: torch.device, blocks: int, block: int) -> str:
    """The table of one pair: kdbench's loop in float32 and bfloat16, and in float32 against the two others."""
    rows = []
    for name in names:
        bench = Bench(name, pair, "float32", blocks, BATCH, device=device, block=block)
        real, bare, conventional = zip(*bench.real([bench.bare(), bench.conventional()]), strict=True)
        shares = [r / b for r, b in zip(real, bare, strict=True)]
        gains = [r / c for r, c in zip(real, conventional, strict=True)]
        half = Bench(name, pair, "bfloat16", blocks, BATCH, device=device, block=block)
        rows.append(
            [name, f"{statistics.median(real):,.0f}", spread(shares), spread(gains), f"{scale.median_rate(half):,.0f}"]
        )
    head = ["method", "images/s, float32", "to bare", "to conventional", "images/s, bfloat16"]
    return f"## {pair[0]} from {pair[1]}, batch {BATCH}\n\n{table(head, rows)}"


def compiled(pair: tuple[str, str], device: torch.device, blocks: int, block: int) -> str:
    """The table of `Machine.compile`, for kd in float32."""
    rows, usual = [], 0.0
    for mode in COMPILED:
        words = [f"Machine.compile={mode}"]
        rate = scale.median_rate(Bench("kd", pair, "float32", blocks, BATCH, device=device, block=block, words=words))
        usual = usual or rate
        rows.append([f"`Machine.compile={mode}`", f"{rate:,.0f}", f"{rate / usual:.2f}"])
    return f"## Compiled: kd, {pair[0]} from {pair[1]}, float32\n\n{table(['', 'images/s', 'ratio'], rows)}"


def at_once(pair: tuple[str, str], device: torch.device, blocks: int, block: int) -> str:
    """The table of several runs on the GPU."""
    rows, alone = [], 0.0
    for runs in (1, 2, 4, 8):
        words = ["--pair", *pair, "--device", str(device), "--block", str(block)]
        rate, _ = scale.figures([scale.process("kd", 1, BATCH, blocks, words) for _ in range(runs)])
        alone = alone or rate
        rows.append([f"`runs_per_gpu={runs}`", f"{rate:,.0f}", f"{rate / alone:.2f}"])
    head = ["", "images/s together", "ratio"]
    return f"## Several runs on the GPU: kd, {pair[0]} from {pair[1]}, float32\n\n{table(head, rows)}"


def sections(names: Sequence[str], device: torch.device, blocks: int, block: int) -> Iterator[str]:
    """The sections of the document, each as soon as it is measured."""
    called = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()
    yield (
        f"# Performance on a GPU\n\nMade by `python tests/benchmarks/on_gpu.py --blocks {blocks} --block {block}` on "
        f"{datetime.date.today()}: {called}, {os.cpu_count()} CPU cores, torch {torch.__version__}, made-up images of the "
        "shape of CIFAR-100's. *Bare* has the same modules, precision and batches, made before, and does nothing but train. "
        "*Conventional* is what published code does: PIL images, transforms in two worker processes, contiguous float32, the "
        "losses read in each step. The loops take turns in blocks of steps. A ratio is the median over the blocks, with "
        "quartiles. `Machine.tf32=False`.\n"
    )
    for pair in PAIRS:
        yield training(names, pair, device, blocks, block)
    for pair in PAIRS[:2]:
        yield compiled(pair, device, blocks, block)
        yield at_once(pair, device, blocks, block)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--block", type=int, default=20, help="steps of a block")
    parser.add_argument("--methods", nargs="+", default=sorted(places.sources()))
    given = parser.parse_args()
    keep_freed_memory()
    for section in sections(given.methods, torch.device(given.device), given.blocks, given.block):
        print(section)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
