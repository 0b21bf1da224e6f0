"""A streamed run that is killed at random moments ends in the bits of one in memory, and leaves no process."""

import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest

from kdbench.plan import expand, request
from kdbench.run.execute import run
from kdbench.store.folder import EPOCHS, LOG, RESUME, RunFolder

KILLS = min(10, int(os.environ.get("KDBENCH_KILLS", 12)) // 4)
"""Three by default; 10 with KDBENCH_KILLS=40."""
WORDS = [
    "methods=ce", "dataset=imagefolder", "student=resnet8", "recipe=quick", "Train.epochs=3", "Train.warmup=0",
    "Train.batch_size=8", "Dataset.size=16", "Split.validation=0.25", "Machine.threads=1", "Machine.checkpoint_every=0",
    "Machine.workers=2", "Measures.corruptions=False", "Measures.images=4",
]  # fmt: skip


@pytest.fixture
def data(tmp_path, cats_and_dogs):
    return cats_and_dogs(tmp_path / "data", 20, 4, ending=lambda number: "jpg")


def spec_of(way):
    (spec,) = expand.plan(request.parse([*WORDS, f"Machine.images={way}"]))
    return spec


def child(spec, runs, data):
    os.setsid()
    run(spec, runs, data)


def members(group):
    """Processes of a group that have not ended."""
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(number) == group and state not in "ZX":
            alive.append(path.parent.name)
    return alive


def test_killed_at_random_moments_it_ends_in_the_same_bits(data, tmp_path):
    expected = run(spec_of("memory"), tmp_path / "memory", data)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kdbench.run.execute"])
    spec, draw, groups = spec_of("stream"), random.Random(0), []
    for number in range(KILLS + 1):
        folder = RunFolder(tmp_path / "stream", spec.id)
        before = _changed(folder)
        process = context.Process(target=child, args=(spec, tmp_path / "stream", data))
        process.start()
        groups.append(process.pid)
        if number == KILLS:
            process.join(100)
            assert process.exitcode == 0
            continue
        while process.is_alive() and _changed(folder) == before:
            time.sleep(0.005)
        process.join(draw.uniform(0.0, 0.2))
        process.kill()
        process.join()
        if folder.result():
            break
    result = folder.result()
    assert result["weights.sha256"] == expected["weights.sha256"]
    assert result["accuracy.last"] == expected["accuracy.last"]
    assert "resuming at step" in (folder / LOG).read_text()
    deadline = time.monotonic() + 20
    while any(members(group) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(members(group) for group in groups)


def _changed(folder):
    return [path.stat().st_mtime_ns for path in (folder / EPOCHS, folder / RESUME) if path.exists()]
