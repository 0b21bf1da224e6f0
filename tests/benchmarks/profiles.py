"""Where the time of a training step goes, by operator: prints a section of docs/performance.md.

python tests/benchmarks/profiles.py corsd crd rkd [--precision bfloat16] [--steps 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from loops import Bench
from tables import table
from torch.profiler import ProfilerActivity, profile

from kdbench.config import places
from kdbench.run.allocator import keep_freed_memory

ROWS = 6


def shares(name: str, pair: tuple[str, str], precision: str, length: int) -> dict[str, float]:
    """The share of each operator in percent of the time on the CPU, largest first, in the steps of kdbench's loop.

    The time of an operator is its own, without that of the operators it calls.
    """
    bench = Bench(name, pair, precision, length)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        bench.real()
    times = {each.key: each.self_cpu_time_total for each in recorded.key_averages() if each.key.startswith("aten::")}
    whole = sum(times.values())
    return {key: 100 * times[key] / whole for key in sorted(times, key=lambda key: -times[key])}


def section(names: Sequence[str], pair: tuple[str, str], precision: str, length: int) -> str:
    """The table of some methods: an operator's share of the time in the steps of each."""
    every = {name: shares(name, pair, precision, length) for name in names}
    first = sorted({key for each in every.values() for key in list(each)[:ROWS]})
    first.sort(key=lambda key: -sum(each.get(key, 0.0) for each in every.values()))
    rows = [[f"`{key}`", *(f"{each.get(key, 0.0):.0f} %" for each in every.values())] for key in first]
    rest = [sum(share for key, share in each.items() if key not in first) for each in every.values()]
    rows.append(["all others", *(f"{share:.0f} %" for share in rest)])
    title = f"## Share of the time on the CPU in a step: {pair[0]} from {pair[1]}, {precision}"
    return f"{title}\n\n{table(['operator', *names], rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="+", choices=sorted(places.sources()))
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--pair", nargs=2, default=("resnet20", "resnet56"), metavar=("STUDENT", "TEACHER"))
    parser.add_argument("--steps", type=int, default=5)
    given = parser.parse_args()
    keep_freed_memory()
    print(section(given.names, (given.pair[0], given.pair[1]), given.precision, given.steps))


if __name__ == "__main__":
    main()
