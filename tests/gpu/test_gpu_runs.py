"""Whole runs on a GPU: resumed, compiled, recorded as CUDA graphs, two at a time, and what their rows record."""

import csv

import pytest
import torch

from kdbench.config import places
from kdbench.launch import gpus, local
from kdbench.run.caller import Caller
from kdbench.run.execute import run
from kdbench.run.resume import Stopped
from kdbench.store.folder import EPOCHS, RunFolder

DEVICE = "cuda"
EXACT = "Machine.deterministic=True"


def do(specs, runs):
    """The results of specs, each in one go."""
    results = [run(spec, runs, None) for spec in specs]
    assert [result["status"] for result in results] == ["finished"] * len(specs), results
    return results


def losses(runs, spec):
    """The mean loss of each epoch."""
    return [float(line["loss"]) for line in csv.DictReader((RunFolder(runs, spec.id) / EPOCHS).open())]


@pytest.mark.parametrize("name", sorted(places.sources()))
def test_a_run_that_is_resumed_in_deterministic_mode_ends_in_the_same_bits(plan, tmp_path, name):
    *teachers, spec = plan(f"methods={name}", EXACT, "Machine.checkpoint_every=0")
    *_, whole = do([*teachers, spec], tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    for teacher in teachers:
        (tmp_path / "parts" / teacher.id).symlink_to(tmp_path / "whole" / teacher.id)
    processes = 0
    while RunFolder(tmp_path / "parts", spec.id).result() is None:
        processes, asked = processes + 1, iter(range(10**6))
        try:
            run(spec, tmp_path / "parts", None, Caller(stop=lambda asked=asked: next(asked) > 1))
        except Stopped:
            continue
    parts = RunFolder(tmp_path / "parts", spec.id).result()
    assert processes > 2
    assert parts["weights.sha256"] == whole["weights.sha256"]
    assert losses(tmp_path / "parts", spec) == losses(tmp_path / "whole", spec)


@pytest.mark.parametrize(("name", "mode"), [("kd", True), ("kd", "reduce-overhead"), ("byot", "reduce-overhead")])
def test_compiled_networks_learn_what_the_others_learn(plan, figure, tmp_path, name, mode):
    from torch._dynamo.utils import counters

    usual, compiled = plan(f"methods={name}", EXACT), plan(f"methods={name}", EXACT, f"Machine.compile={mode}")
    do(usual, tmp_path / "usual")
    torch.compiler.reset()
    counters.clear()
    *_, result = do(compiled, tmp_path / "compiled")
    assert (result["provenance.compile"], result.get("provenance.compile_mode")) == (
        True,
        None if mode is True else mode,
    )
    assert counters["inductor"]["cudagraph_skips"] == 0
    one, other = losses(tmp_path / "usual", usual[-1]), losses(tmp_path / "compiled", compiled[-1])
    assert other[0] == pytest.approx(one[0], rel=1e-2)  # rounding grows from step to step
    figure(f"{name}, Machine.compile={mode}: loss of the first epoch, and without", f"{other[0]:.5f}, {one[0]:.5f}")


def test_two_runs_on_one_gpu_give_the_weights_that_each_gives_alone(plan, tmp_path, monkeypatch):
    specs = plan("methods=ce", "seeds=0,1", EXACT)
    alone = do(specs, tmp_path / "alone")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus.visible_gpus()[0])
    together = local.local(specs, tmp_path / "together", None, None, runs_per_gpu=2)
    assert [r["weights.sha256"] for r in together] == [r["weights.sha256"] for r in alone]
    assert ([r["provenance.runs_per_gpu"] for r in alone], [r["provenance.runs_per_gpu"] for r in together]) == (
        [1, 1],
        [2, 2],
    )
    assert {r["provenance.device"] for r in together} == {torch.cuda.get_device_name()}


@pytest.mark.parametrize(
    ("word", "holds", "lacks"),
    [
        (EXACT, "backends.cudnn.allow_tf32=False", "backends.cudnn.benchmark=True"),
        ("Machine.tf32=True", "backends.cuda.matmul.allow_tf32=True", "backends.cudnn.allow_tf32=False"),
        ("Machine.tf32=False", "backends.cudnn.benchmark=True", "backends.cuda.matmul.allow_tf32=True"),
    ],
)
def test_a_row_records_memory_and_arithmetic(plan, figure, tmp_path, word, holds, lacks):
    *_, result = do(plan("methods=ce", word), tmp_path)
    assert holds in result["provenance.arithmetic"]
    assert lacks not in result["provenance.arithmetic"]
    assert 0 < result["cost.peak_memory_bytes"] < torch.cuda.get_device_properties(DEVICE).total_memory
    assert result["cost.peak_resident_bytes"] > 0
    figure(f"ce, {word}: images per second, MB on the GPU and resident", " ".join(
        str(round(value)) for value in (
            result["cost.images_per_second"], result["cost.peak_memory_bytes"] / 1e6, result["cost.peak_resident_bytes"] / 1e6,
        )
    ))  # fmt: skip


def test_energy(plan, figure, tmp_path):
    pynvml = pytest.importorskip("pynvml")
    pynvml.nvmlInit()
    *_, result = do(plan("methods=ce"), tmp_path)
    joules = result["cost.energy_joules"]
    if joules is None:
        pytest.skip("this GPU, or instance of one, does not count its energy")
    assert joules > 0
    figure("ce: energy in training", f"{joules:.0f} J")
