"""Latency: what is measured, and what the command prints of it."""

import json

import pytest
import torch
from torch import nn

from kdbench.cli.main import main
from kdbench.launch import local
from kdbench.plan import expand, request
from kdbench.run import latency

CPU = torch.device("cpu")


class Counting(nn.Module):
    """Counts its calls by batch size."""

    def __init__(self, width):
        super().__init__()
        self.layer, self.calls = nn.Linear(64, width), {}

    def forward(self, x):
        self.calls[len(x)] = self.calls.get(len(x), 0) + 1
        return self.layer(x.flatten(1))


def test_every_network_is_called_equally_often_after_warming_up():
    networks = {name: latency.Deployed(Counting(8), (1, 8, 8)) for name in "ab"}
    measured = latency.measure(networks, CPU, batches=(1, 4), rounds=7)
    assert {name: each.network.calls for name, each in networks.items()} == {
        name: {1: 7 + latency.WARM_UP, 4: 7 + latency.WARM_UP} for name in "ab"
    }
    for by_batch in measured.values():
        assert list(by_batch) == [1, 4]
        assert all(0 < each.lower <= each.median <= each.upper for each in by_batch.values())


def test_a_larger_network_takes_longer():
    networks = {
        name: latency.Deployed(nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10)), (1, 8, 8))
        for name, width in (("small", 8), ("large", 200_000))
    }
    measured = latency.measure(networks, CPU, batches=(1,), rounds=5)
    assert measured["large"][1].median > measured["small"][1].median


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    words = ["dataset=digits", "student=resnet8", "Train.epochs=1", "Train.warmup=0", "Measures.corruptions=False"]
    local.inline(expand.plan(request.parse(["methods=ce", *words, "Measures.noise=()"])), folder, None)
    return folder


def test_the_command_names_the_machine_and_writes_nothing(runs, capsys):
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    assert main(["latency", "methods=ce", "--runs", str(runs), "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["threads"] == torch.get_num_threads()
    assert [row["batch"] for row in found["latencies"]] == [1, 64]
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before
    assert main(["latency", "all", "--runs", str(runs), "--device", "cpu"]) == 0
    assert "batch 64: ms" in capsys.readouterr().out


def test_what_cannot_be_measured_is_one_sentence(runs, tmp_path, capsys):
    assert main(["latency", "--runs", str(runs)]) == 2
    assert "specify the runs to measure" in capsys.readouterr().err
    assert main(["latency", "all", "--runs", str(tmp_path)]) == 2
    assert "no finished run to measure" in capsys.readouterr().err
    (checkpoint,) = runs.glob("*/checkpoint.pt")
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(b"nothing")
    try:
        assert main(["latency", "all", "--runs", str(runs), "--device", "cpu"]) == 1
    finally:
        checkpoint.write_bytes(content)
    assert "was not measured" in capsys.readouterr().err
