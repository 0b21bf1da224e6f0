"""What it takes to make the leaderboard of ten thousand made-up runs: from all folders, and after one of them has changed.

`make bench`. `python tests/benchmarks/test_board.py 10000` prints time and peak memory of both, in processes of their own.
"""

import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from kdbench.config import BASELINE
from kdbench.report.leaderboard import regenerate

RUNS = 10_000
SEEDS, METHODS, STUDENTS, DATASETS = 5, 20, 5, 4


def made_up(number):
    """The result of one run of many: 100 runs a table."""
    rest, seed = divmod(number, SEEDS)
    rest, place = divmod(rest, METHODS)
    rest, student = divmod(rest, STUDENTS)
    recipe, dataset = divmod(rest, DATASETS)
    method = f"method{place}" if place else BASELINE
    teacher = {"teacher": "wide", "teacher.sha256": "c" * 64, "teacher.accuracy": 61.26} if place % 2 else {}
    accuracy = 60 + place / 10 + random.Random(number).gauss(0, 1)
    run = f"{method}-data{dataset}-net{student}-s{seed}-{hashlib.sha256(str(number).encode()).hexdigest()[:10]}"
    return {
        **{"run": run, "status": "finished", "method": method, "method.parameters": "{}", "dataset": f"data{dataset}"},
        **{
            "student": f"net{student}",
            "teacher": None,
            "recipe": f"recipe{recipe}",
            "control": "{}",
            "overrides": "{}",
        },
        **{
            "seed": seed,
            "protocol": f"{recipe:04}{dataset:04}",
            "accuracy.last": accuracy,
            "accuracy.val": accuracy - 1,
        },
        **{"accuracy.best_val": accuracy - 0.5, "best_epoch": 190, "images_seen": 9_000_000, "cost.parameters": 83892},
        **{"seconds.train": 512.5, "seconds.evaluate": 0.4, "seconds.total": 513.1, "cost.images_per_second": 17561.0},
        **{"weights.sha256": hashlib.sha256(run.encode()).hexdigest(), "data.sha256": "d" * 64, "tuning.trials": 0},
        **{f"exits.exit{i}": accuracy - 3 + i for i in range(3 * (place == 5))},
        **{"provenance.clean": True, "provenance.commit": "a" * 40, "provenance.method_sha256": "b" * 64},
        **{
            "provenance.device": "cpu",
            "provenance.torch": "2.6.0",
            "provenance.platform": "Linux",
            "provenance.threads": 2,
        },
        **{
            "provenance.command": f"kdbench run methods={method} dataset=data{dataset} student=net{student} seeds={seed}"
        },
        **{"provenance.finished_at": f"2025-01-01T00:00:{number % 60:02}+00:00"},
        **measured(random.Random(number), accuracy),
        **teacher,
    }


def measured(draw, accuracy):
    """All that `Measures` asks for, as many keys as a real run stores."""
    numbers = {
        **{f"robustness.corruption.kind{kind}": accuracy - draw.uniform(0, 20) for kind in range(15)},
        **{f"robustness.severity.{severity}": accuracy - 3 * severity - draw.random() for severity in range(1, 6)},
        **{f"robustness.noise.{sigma}": accuracy - 100 * sigma - draw.random() for sigma in (0.02, 0.05, 0.1, 0.2)},
        **{f"convergence.images.{reached}": 9_000_000 * reached // 90 for reached in range(10, 70, 10)},
        **{f"convergence.seconds.{reached}": 512.5 * reached / 90 + draw.random() for reached in range(10, 70, 10)},
        **{"calibration.ece": 5 + draw.random(), "calibration.nll": 2 + draw.random(), "convergence.auc": accuracy - 9},
        **{"robustness.corruptions": accuracy - 9, "accuracy.top5": accuracy + 20, "teacher.agreement": accuracy - 2},
        "cost.energy_joules": 90_000 + draw.random(),
    }
    whole = {"measures.version": 1, "measures.images": 500, "cost.flops": 81_637_888, "cost.flops_training": 4_000_000}
    return whole | {key: round(value, 6) for key, value in numbers.items()}


def write(runs, number, **changes):
    result = made_up(number) | changes
    folder = runs / result["run"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result, indent=1))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    runs = tmp_path_factory.mktemp("board") / "runs"
    for number in range(RUNS):
        write(runs, number)
    return runs


@pytest.mark.benchmark(group=f"leaderboard of {RUNS} runs")
def test_from_all_folders(benchmark, many, tmp_path):
    outs = iter(range(100))
    outcome = benchmark.pedantic(lambda: regenerate(many, tmp_path / str(next(outs))), rounds=3, warmup_rounds=1)
    assert (outcome.runs, outcome.read, outcome.messages) == (RUNS, RUNS, [])


@pytest.mark.benchmark(group=f"leaderboard of {RUNS} runs")
def test_after_one_run_has_changed(benchmark, many, tmp_path):
    regenerate(many, tmp_path)
    accuracies = iter(range(50, 90))
    outcome = benchmark.pedantic(
        lambda: regenerate(many, tmp_path),
        setup=lambda: write(many, 0, **{"accuracy.last": float(next(accuracies))}),
        rounds=3,
        warmup_rounds=1,
    )
    assert (outcome.runs, outcome.read, len(outcome.changed)) == (RUNS, 1, 4)


def measure(runs, out):
    """What one regeneration takes, of a process that does nothing else."""
    began, cpu = time.perf_counter(), time.process_time()
    outcome = regenerate(runs, out)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{outcome.runs} runs, {outcome.read} read: {took:.1f} s ({cpu:.1f} s of CPU), {peak:.0f} MiB at most")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(Path(sys.argv[1]), Path(sys.argv[2]))
        sys.exit()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for number in range(int(sys.argv[1])):
            write(folder / "runs", number)
        for accuracy in (70.0, 71.0):
            write(folder / "runs", 0, **{"accuracy.last": accuracy})
            subprocess.run([sys.executable, __file__, str(folder / "runs"), str(folder / "out")], check=True)
