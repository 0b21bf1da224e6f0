"""The program that writes docs/performance.md, in its quick form."""

import importlib
import os
from pathlib import Path

import gin
import pytest


@pytest.fixture
def performance(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield importlib.import_module("performance")
    gin.clear_config()


def test_verdicts_follow_from_the_figures(performance):
    cheap, dear = (performance.Rates([], [], [], [cost] * 3) for cost in (1.05, 1.5))
    lines = performance.costs({"ce": performance.Rates([], [], [], []), "rkd": cheap, "corsd": dear}).splitlines()
    assert "| rkd over kd | 1.05 (1.05–1.05) | ≤ 1.1 | met |" in lines
    assert "| corsd over ce | 1.50 (1.50–1.50) | ≤ 1.35 | **not met** |" in lines
    assert performance.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == "3.00 (2.00–4.00)"


def test_shares_of_a_profile_sum_to_all_of_it(performance):
    shares = importlib.import_module("profiles").shares("ce", ("resnet8", "resnet20"), "float32", 1)
    assert sum(shares.values()) == pytest.approx(100)
    assert "aten::convolution_backward" in list(shares)[:3]


@pytest.mark.skipif("KDBENCH_EVERY" not in os.environ, reason="half a minute; with KDBENCH_EVERY=1")
def test_three_loops_take_turns_and_all_parts_are_measured(performance):
    text = "\n".join(performance.sections(1, 1, quick=True))
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| ce | ", "| kd | "))]
    assert [row[0] for row in rows] == ["| ce", "| kd"]
    assert all(float(row[column]) > 0 for row in rows for column in (1, 2, 4))
    assert text.count("met") >= 8
    assert "| `kdbench --help` | " in text


def test_loops_train_on_the_same_images(performance):
    loops = importlib.import_module("loops")
    bench = loops.Bench("kd", ("resnet8", "resnet20"), "float32", length=1, batch=4)
    first, second = (list(bench.batches(bench.method())) for _ in range(2))
    assert len(first) == 1 + loops.WARMING
    assert all((a.images == b.images).all() and (a.index == b.index).all() for a, b in zip(first, second, strict=True))
