"""Whole runs on digits: a few steps of the real thing, for every method there is."""

import csv
import dataclasses
import json

import pytest
import torch
from examples import each_method

from kdbench import methods
from kdbench.backbones import registry
from kdbench.config import BASELINE, bindings, places, settings, signature
from kdbench.config.ginfile import Configurables
from kdbench.config.settings import Augment, Dataset, Split
from kdbench.config.switches import Strong
from kdbench.data import task as task_
from kdbench.data.augment import Augmenter
from kdbench.launch import backlog, local
from kdbench.measures.cost import PeakMemory
from kdbench.method import Info
from kdbench.plan import expand, request
from kdbench.run import checkpoint, prepare
from kdbench.run.execute import run
from kdbench.run.loop.batches import passes_per_anchor, steps
from kdbench.run.loop.budget import Budget
from kdbench.run.prepare import Ready, build
from kdbench.run.teacher import LoadedTeacher
from kdbench.store import provenance
from kdbench.store.folder import CHECKPOINT, OPERATIVE, RunFolder
from kdbench.store.result import defects
from kdbench.streams import Streams

EVERY = [name for name in sorted(places.sources()) if "Teaching.method" not in bindings.of_method(name)]
"""All methods whose teacher may be any network."""
DEMO = ("byot", "ce", "corsd", "crd", "kd", "rkd")
"""In whole runs here; all others are in tests/contract/test_every_method.py."""
SHORT = [
    "dataset=digits",
    "student=resnet8",
    "teacher=resnet14",
    "Train.epochs=2",
    "Train.warmup=0",
    "Split.validation=0.1",
    "Measures.corruptions=False",
    "Measures.images=10",
]


def specs(*words):
    return expand.plan(request.parse([*SHORT, *words]))


def do(runs, *words):
    return local.inline(specs(*words), runs, None)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The methods of the demo, once."""
    runs = tmp_path_factory.mktemp("all")
    return runs, do(runs, f"methods={','.join(DEMO)}")


def test_every_method_finishes_with_a_complete_result(everything):
    runs, results = everything
    assert {r["method"] for r in results} == set(DEMO)
    for result in results:
        assert result["status"] == "finished", result.get("error")
        assert defects(result) == []
        assert 0 <= result["accuracy.last"] <= 100
        assert 0 <= result["accuracy.val"] <= 100
        assert 0 <= result["accuracy.best_val"] <= 100
        assert result["cost.flops"] > 0
        assert result["cost.peak_memory_bytes"] > 2**20
        assert result["provenance.command"].startswith("kdbench run methods=")
        stored = json.loads((runs / result["run"] / "result.json").read_text())
        assert stored == result
        lines = list(csv.DictReader((runs / result["run"] / "epochs.csv").open()))
        assert int(lines[-1]["images"]) == result["images_seen"]


def test_all_methods_see_the_same_budget(everything):
    _, results = everything
    budget = 2 * 81
    assert all(budget - 33 < r["images_seen"] <= budget for r in results)


def test_what_is_kept_is_the_student_and_nothing_else(everything):
    runs, results = everything
    student = registry.build("resnet8", 10, 1)
    for result in results:
        if result["student"] != "resnet8" or result["method"] == "simkd":  # which deploys another network
            continue
        assert result["cost.parameters"] == sum(p.numel() for p in student.parameters())
        content = checkpoint.load(runs / result["run"] / CHECKPOINT)
        assert {k: v.shape for k, v in content["student"].items()} == {
            k: v.shape for k, v in student.state_dict().items()
        }
        assert checkpoint.weights_sha256(content["student"]) == result["weights.sha256"]


def test_exits_and_their_ensemble_are_in_the_result_of_methods_that_train_them(everything):
    _, results = everything
    for result in results:
        source = methods.load(result["method"])
        exits = {key for key in result if key.startswith("exits.")}
        has_exits = "def exits" in places.sources()[result["method"]].read_text()
        assert bool(exits) == has_exits, source
        if exits:
            assert "exits.ensemble" in exits
            assert len(exits) >= 2


def test_gin_used_every_value_of_the_configuration_and_no_other(everything):
    runs, results = everything
    for result in results:
        operative = keys((runs / result["run"] / OPERATIVE).read_text())
        resolved = keys((runs / result["run"] / "config.gin").read_text())
        # Those that no gin file here binds keep the defaults that Python gives them.
        assert {key for key in operative if key in resolved or not _has_default(key)} == resolved


def _has_default(key):
    name, _, parameter = key.partition(".")
    return signature.shared()[name].parameters[parameter].default is not dataclasses.MISSING


def keys(text):
    """Configurable.parameter of every binding; gin may write the module before it."""
    lines = [line for line in text.splitlines() if " = " in line and not line.startswith("#")]
    names = [line.split(" = ")[0].strip() for line in lines]
    return {".".join(name.split(".")[-2:]) for name in names}


def test_a_teacher_is_the_run_that_the_plan_names_measured_again(everything):
    _, results = everything
    by_run = {r["run"]: r for r in results}
    taught = [r for r in results if r["teacher"]]
    assert {r["method"] for r in taught} == {m for m in DEMO if methods.load(m).needs_teacher}
    for result in taught:
        teacher = by_run[result["teacher.run"]]
        assert result["teacher.sha256"] == teacher["weights.sha256"]
        assert result["teacher.accuracy"] == teacher["accuracy.last"]


@pytest.mark.parametrize("name", DEMO)
def test_a_run_is_repeated_bit_for_bit_whatever_the_global_generators_say(everything, tmp_path, name):
    _, results = everything
    torch.manual_seed(4711)
    again = do(tmp_path, f"methods={name}")
    first = {r["run"]: r["weights.sha256"] for r in results}
    torch.manual_seed(4712)
    assert all(first[r["run"]] == r["weights.sha256"] for r in again)


@pytest.fixture(scope="module")
def built(request):
    """Each method asked for, and the baseline, around the student of seed 3, as a run builds it, and its first 50 batches."""
    import gin

    digits = Dataset(source="digits", mean=(0.3,), std=(0.35,), mirrored=True)
    recipe = settings.Train(200.0, 32, None, 0.0, 0.0, "float32", 0.0)
    ours = [item for item in request.session.items if item.module is request.module]
    asked = {item.callspec.params["name"] for item in ours if "built" in item.fixturenames}
    found = {}
    for name in sorted({BASELINE, *asked}):
        (spec,) = [s for s in specs(f"methods={name}", "seeds=3") if not s.is_teacher]
        cls = methods.load(name)
        gin.clear_config()
        gin.parse_config(spec.config)
        task = task_.load(digits, Split(validation=0.0, seed=0), None, torch.device("cpu"))
        teachers = [LoadedTeacher(registry.build("resnet14", 10, 1), None, "", None)] if cls.needs_teacher else []
        given = settings.from_gin()._replace(train=recipe)
        cpu = torch.device("cpu")
        method = build(spec, Ready(cls, given, cpu, PeakMemory(cpu), {}, task, tuple(teachers)), Streams(3))
        initial = checkpoint.weights_sha256(method.student.state_dict())
        budget = Budget(recipe, len(task.train), passes_per_anchor(cls))
        augmenter = Augmenter(task.train, Augment(0.125, 0, True, 0.5), digits, Strong())
        batches = []
        for batch in steps(method, task, augmenter, Streams(3), budget):
            if batch.step < 3:
                method.losses(batch)  # whatever it draws here must move nothing below
            batches.append((batch.index[: budget.anchors], batch.images[: budget.anchors]))
            if len(batches) == 50:
                break
        found[name] = initial, torch.cat([i for i, _ in batches]), torch.cat([x for _, x in batches])
    gin.clear_config()
    return found


@pytest.mark.parametrize(
    "name", each_method(name for name in EVERY if name != "virtual_softmax")
)  # whose classifier has no bias
def test_all_methods_start_from_the_same_weights(built, name):
    assert built[name][0] == built[BASELINE][0]


@pytest.mark.parametrize("name", each_method(EVERY))
def test_all_methods_meet_the_same_anchors_with_the_same_augmentations(built, name):
    _, places_, images = built[name]
    _, base_places, base_images = built[BASELINE]
    n = min(len(places_), len(base_places))
    assert n >= 50 * 8, "a method of four passes has a quarter of the anchors"
    assert torch.equal(places_[:n], base_places[:n])
    assert torch.equal(images[:n], base_images[:n])


def test_an_error_ends_its_run_only_and_is_kept(tmp_path):
    results = do(tmp_path, "methods=ce,corsd,byot", "CORSD.kl=raw")
    status = {r["method"]: r["status"] for r in results}
    assert status == {"ce": "finished", "corsd": "failed", "byot": "finished"}
    (failed,) = [r for r in results if r["status"] == "failed"]
    assert failed["error"].startswith("the loss is not finite at step")
    folder = RunFolder(tmp_path, failed["run"])
    assert folder.state() == "failed"
    assert "Traceback" in (folder / "log.txt").read_text()
    assert backlog.open_runs(specs("methods=ce,corsd,byot", "CORSD.kl=raw"), tmp_path) == [
        s for s in specs("methods=ce,corsd,byot", "CORSD.kl=raw") if s.method == "corsd"
    ]


def test_finished_runs_are_left_alone_and_teachers_are_not_repeated(everything):
    runs, _ = everything
    assert backlog.open_runs(specs(f"methods={','.join(DEMO)}"), runs) == []
    again = backlog.open_runs(specs("methods=kd"), runs, rerun=True)
    assert [s.method for s in again] == ["kd"]


def test_weights_that_are_not_those_of_the_teachers_run_stop_the_run(tmp_path):
    do(tmp_path, "methods=kd")
    (teacher,) = [s for s in specs("methods=kd") if s.is_teacher]
    path = tmp_path / teacher.id / CHECKPOINT
    content = checkpoint.load(path)
    content["student"]["fc.bias"][0] += 1e-3
    torch.save(content, path)
    (result,) = local.inline([s for s in specs("methods=kd", "seeds=1") if not s.is_teacher], tmp_path, None)
    assert result["status"] == "failed"
    assert "do not match the recorded checksum (sha256)" in result["error"]


def test_a_teacher_of_other_images_stops_the_run(tmp_path):
    do(tmp_path, "methods=kd")
    (teacher,) = [s for s in specs("methods=kd") if s.is_teacher]
    path = tmp_path / teacher.id / "result.json"
    path.write_text(path.read_text().replace('"data.sha256": "', '"data.sha256": "x'))
    (result,) = local.inline([s for s in specs("methods=kd", "seeds=1") if not s.is_teacher], tmp_path, None)
    assert "was trained on different images" in result["error"]
    assert not (tmp_path / result["run"] / "epochs.csv").exists(), "stopped before training"


def test_a_teacher_that_measures_differently_stops_the_run(tmp_path):
    do(tmp_path, "methods=kd")
    (teacher,) = [s for s in specs("methods=kd") if s.is_teacher]
    path = tmp_path / teacher.id / "result.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "accuracy.last": content["accuracy.last"] + 3.73}))
    (result,) = local.inline([s for s in specs("methods=kd", "seeds=1") if not s.is_teacher], tmp_path, None)
    assert "% on the test set, but its run recorded" in result["error"]


def test_the_test_set_chooses_only_where_the_switch_was_given_and_the_run_is_stamped(tmp_path):
    (plain,) = do(tmp_path, "methods=ce")
    (chosen,) = do(tmp_path, "methods=ce", "Selection.on_test=True")
    assert "selected_on_test" not in plain
    assert chosen["selected_on_test"] is True
    assert chosen["accuracy.best_test"] >= chosen["accuracy.last"] == plain["accuracy.last"]
    assert chosen["protocol"] != plain["protocol"]
    assert json.loads(chosen["overrides"])["Selection.on_test"] is True
    (off,) = specs("methods=ce", "Selection.on_test=False")
    assert off.id == plain["run"]


def test_a_run_whose_teacher_failed_says_so(tmp_path):
    results = do(tmp_path, "methods=kd", "SGD.lr=1e30")
    assert [r["status"] for r in results] == ["failed", "failed"]
    assert results[1]["error"] == f"its teacher's run {results[0]['run']} is failed"


def test_every_parameter_of_every_method_is_known_to_the_command_line():
    assert {*Configurables()} >= {methods.load(n).__name__ for n in places.sources()}


def test_a_device_that_is_not_there_is_a_clear_error(tmp_path):
    (result,) = do(tmp_path, "methods=ce", "Machine.device=cuda:77")
    assert result["error"].startswith("Machine.device='cuda:77' is not available here")


def test_info_holds_the_training_labels_only(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(prepare, "Info", lambda **a: seen.append(Info(**a)) or seen[-1])
    (spec,) = specs("methods=ce")
    run(spec, tmp_path, None)
    assert len(seen[0].train_labels) == 81


@pytest.mark.parametrize("submitted", ["0" * 40, None])
def test_a_run_in_a_job_tells_which_and_what_was_submitted(tmp_path, monkeypatch, submitted):
    commit = provenance.of_this_code()[0] or "1" * 40
    monkeypatch.setattr(provenance, "of_this_code", lambda: (commit, True))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv(provenance.SUBMITTED, submitted or commit)
    (result,) = do(tmp_path, "methods=ce")
    assert result["provenance.job"] == "12_3"
    assert result["provenance.host"]
    assert result["provenance.commit_submitted"] == (submitted or commit)
    log = tmp_path / result["run"] / "log.txt"
    said = log.read_text() if log.exists() else ""
    assert ("submitted at commit 000" in said) is bool(submitted)


def test_a_run_outside_a_cluster_tells_no_host(everything):
    assert not [key for key in everything[1][0] if key in ("provenance.job", "provenance.host")]
