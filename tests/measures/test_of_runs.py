"""What whole runs store of all this, and that nothing of it changes them."""

import json
import re
import subprocess
import sys

import pytest

from kdbench.errors import UserError
from kdbench.launch import local
from kdbench.measures import VERSION, cost, energy
from kdbench.plan import expand, request
from kdbench.run import evaluate
from kdbench.run.caller import Caller
from kdbench.run.execute import run
from kdbench.run.resume import Stopped
from kdbench.store.folder import EPOCHS, RunFolder
from kdbench.store.result import defects

WORDS = [
    "dataset=digits", "student=resnet8", "teacher=resnet14", "Train.epochs=2", "Train.warmup=0", "Split.validation=0.2",
]  # fmt: skip
LITTLE = ["Measures.images=10"]
NONE = ["Measures.corruptions=False", "Measures.noise=()", "Measures.accuracies=()"]


def specs(*words):
    return expand.plan(request.parse([*WORDS, *words]))


def do(runs, *words):
    return local.inline(specs(*words), runs, None)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """kd with its teacher, and a method with exits."""
    return do(tmp_path_factory.mktemp("runs"), "methods=kd,byot", *LITTLE)


def test_everything_is_in_the_result(results):
    teacher, kd, byot = sorted(results, key=lambda r: ["ce", "kd", "byot"].index(r["method"]))
    for result in results:
        assert result["status"] == "finished", result.get("error")
        assert defects(result) == []
        assert (result["measures.version"], result["measures.images"]) == (VERSION, 10)
        assert result["accuracy.last"] <= result["accuracy.top5"] <= 100
        assert 0 <= result["calibration.ece"] <= 100
        assert result["calibration.nll"] > 0
        assert len([key for key in result if key.startswith("robustness.noise.")]) == 4
        assert len([key for key in result if key.startswith("robustness.corruption.")]) == 15
        assert len([key for key in result if key.startswith("robustness.severity.")]) == 5
        assert 0 <= result["robustness.corruptions"] <= 100
        assert 0 <= result["convergence.auc"] <= 100
        assert len([key for key in result if re.match(r"convergence\.(images|seconds)\.", key)]) == 18
        assert result["cost.energy_joules"] is None
    assert 0 <= kd["teacher.agreement"] <= 100
    assert teacher["teacher.agreement"] is None
    assert teacher["fidelity.cka"] is teacher["fidelity.kl"] is None
    agreements = [kd[f"fidelity.agreement_{where}"] for where in ("right", "wrong")]
    right = kd["teacher.accuracy"] / 100
    mixed = right * agreements[0] + (1 - right) * agreements[1]
    assert mixed == pytest.approx(kd["teacher.agreement"])
    assert kd["fidelity.kl"] > 0
    assert 0 < kd["fidelity.cka"] <= 1
    assert kd["cost.flops_training"] == kd["cost.flops"] + teacher["cost.flops"]
    assert byot["cost.flops.exit1"] < byot["cost.flops.exit2"] < byot["cost.flops.ensemble"]
    assert not [key for key in kd if key.startswith("cost.flops.")]


def test_measures_change_no_weights_ids_or_protocols(results, tmp_path):
    without = {r["run"]: r for r in do(tmp_path, "methods=kd,byot", *NONE)}
    for result in results:
        other = without[result["run"]]
        assert result["weights.sha256"] == other["weights.sha256"]
        assert result["protocol"] == other["protocol"]
        assert result["accuracy.last"] == other["accuracy.last"]
        assert other["robustness.corruptions"] is None


def test_the_same_network_is_measured_the_same_again(results, tmp_path):
    (again,) = do(tmp_path, "methods=byot", *LITTLE)
    (first,) = (r for r in results if r["run"] == again["run"])
    timed = ("seconds.", "convergence.seconds.", "provenance.", "cost.peak", "cost.images")
    assert {k: v for k, v in again.items() if not k.startswith(timed)} == {
        k: v for k, v in first.items() if not k.startswith(timed)
    }


def test_without_a_validation_split_convergence_is_unknown(tmp_path):
    (result,) = do(tmp_path, "methods=ce", "Measures.corruptions=False")[:1]
    assert result["convergence.auc"] is not None
    (result,) = local.inline(
        expand.plan(request.parse([*WORDS[:-1], "methods=ce", "Split.validation=0", "Measures.corruptions=False"])),
        tmp_path, None,
    )  # fmt: skip
    assert {v for k, v in result.items() if k.startswith("convergence.")} == {None}


def test_a_run_that_is_stopped_while_it_is_measured_goes_on_and_measures_all(tmp_path):
    (spec,) = specs("methods=ce", *LITTLE)
    done = []

    def stop():
        return len(done) > 3

    with pytest.raises(Stopped):
        run(spec, tmp_path, None, Caller(lambda p: done.append(p) if p.measured is not None else None, stop))
    assert RunFolder(tmp_path, spec.id).state() == "absent"
    assert done[-1].measured < 1
    trained = []
    result = run(spec, tmp_path, None, Caller(trained.append, stop))
    assert result["status"] == "finished", "a process that only measures is not stopped, so that it ends at last"
    assert trained == []
    assert result["provenance.sessions"] == 2
    assert (RunFolder(tmp_path, spec.id) / EPOCHS).read_text().count("\n") == 3
    (undisturbed,) = do(tmp_path / "undisturbed", "methods=ce", *LITTLE)
    for key, value in undisturbed.items():
        if key.startswith(("accuracy", "weights", "robustness", "calibration", "convergence.images", "cost.flops")):
            assert result[key] == value, key


def test_energy_is_of_training_over_all_processes_of_a_run(tmp_path, monkeypatch, nvml):
    monkeypatch.setattr("kdbench.measures.energy.of_devices", lambda device, count: energy.Energy(["GPU-a"], nvml))
    (spec,) = specs("methods=ce", "Machine.checkpoint_every=0", *NONE)
    asked = []

    def stop():
        nvml.used["GPU-a"] += 1000  # a joule a step
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(Stopped):
        run(spec, tmp_path, None, Caller(stop=stop))
    nvml.used["GPU-a"] += 50_000  # somebody else's
    result = run(spec, tmp_path, None, Caller(stop=stop))
    assert result["provenance.sessions"] == 2
    steps = result["images_seen"] // 32
    assert result["cost.energy_joules"] == steps - 1, "the loop does not ask after the last step"


def test_energy_of_measuring_does_not_count_where_a_run_is_stopped_then(tmp_path, monkeypatch, nvml):
    monkeypatch.setattr("kdbench.measures.energy.of_devices", lambda device, count: energy.Energy(["GPU-a"], nvml))
    (spec,) = specs("methods=ce", *LITTLE)
    measuring = []

    def report(progress):
        nvml.used["GPU-a"] += 1000
        measuring.append(progress.measured is not None)

    with pytest.raises(Stopped):
        run(spec, tmp_path, None, Caller(report, lambda: measuring.count(True) > 5))
    result = run(spec, tmp_path, None, Caller(report))
    assert result["cost.energy_joules"] == measuring.count(False)


def test_what_is_measured_last_does_not_count_as_memory_of_training(tmp_path, monkeypatch):
    events = []
    inner = cost.PeakMemory.bytes
    monkeypatch.setattr(cost.PeakMemory, "bytes", lambda self: events.append("peak") or inner(self))
    final = evaluate.final
    monkeypatch.setattr(evaluate, "final", lambda *a: events.append("final") or final(*a))
    do(tmp_path, "methods=ce", *NONE)
    assert "peak" in events[: events.index("final")]
    assert "peak" not in events[events.index("final") :]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("Measures.noise=(0.1, 0)", "Measures.noise must be above 0"),
        ("Measures.images=-1", "Measures.images must be at least 0"),
        ("Measures.accuracies=(120,)", "Measures.accuracies must be above 0 and at most 100"),
        ("Measures.image=3", "unknown parameter of Measures 'image'; did you mean 'images'"),
    ],
)
def test_what_cannot_be_measured_is_refused(word, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        specs("methods=ce", word)


def test_no_file_of_a_comparison_can_bind_measures(tmp_path, monkeypatch, own_plugins):
    from kdbench.config import places

    (tmp_path / "gin" / "recipe").mkdir(parents=True)
    (tmp_path / "gin" / "recipe" / "mine.gin").write_text("include 'recipe/quick.gin'\nMeasures.images = 3\n")
    places.add_plugins([str(tmp_path)])
    with pytest.raises(UserError, match=r"binds Measures\.images, which does not belong to it"):
        specs("methods=ce", "recipe=mine")


def test_the_numbers_survive_in_the_leaderboard(results):
    from kdbench.report import records

    kept, _ = records.from_csv(records.to_csv(records.frame(results)), "results.csv")
    for result in results:
        row = kept[kept["run"] == result["run"]].iloc[0]
        for key, value in result.items():
            if (
                key.startswith(("robustness.", "calibration.", "convergence.", "measures.", "cost."))
                and value is not None
            ):
                assert json.loads(row[key]) == value


def test_torch_is_not_needed_to_read_a_curve():
    code = "import sys; import kdbench.measures.convergence; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
