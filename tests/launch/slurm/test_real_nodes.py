"""One run over two nodes."""

import subprocess
import sys
from pathlib import Path

import pytest

from kdbench.launch import local
from kdbench.plan import expand, request
from kdbench.store.folder import RunFolder

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[3]
WORDS = ["methods=corsd", "dataset=digits", "student=resnet8", "Train.epochs=3", "Machine.threads=1"]
WORDS += ["Measures.corruptions=False", "Measures.images=10"]


def test_four_processes_on_two_nodes_train_as_four_on_one(cluster, tmp_path):
    words = [*WORDS, "gpus=4", "Machine.device=cpu"]
    runs = tmp_path / "two nodes"
    command = [sys.executable, "-m", "kdbench", "run", *words, "cluster=testcluster", "--runs", str(runs)]
    environment = cluster.env | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    specs = expand.plan(request.parse(words))
    for spec in specs:
        job = RunFolder(runs, spec.id).read("submission.json")["job"]
        assert cluster.wait(job, "COMPLETED", timeout=180)["NumNodes"] == "2"
    local.local(specs, tmp_path / "one", None, workers=1)
    for spec in specs:
        there, here = (RunFolder(tmp_path / place, spec.id).result() for place in ("two nodes", "one"))
        assert there["status"] == "finished", there
        assert there["provenance.gpus"] == 4
        assert there["weights.sha256"] == here["weights.sha256"]
