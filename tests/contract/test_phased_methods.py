"""FSP and AB: phases, the stem map and pre-activations, trained parameters, and images on top of the budget, in whole runs."""

import csv

import pytest
import torch

from kdbench.backbones import registry
from kdbench.run import checkpoint
from kdbench.run.caller import Caller
from kdbench.run.execute import run
from kdbench.run.resume import Stopped
from kdbench.store.folder import CHECKPOINT, EPOCHS, RunFolder

STEPS, STEP = 3 * 72 // 16, 16
FIRST = {"fsp": 2, "on top": 2, "ab": 5}
WORDS = {"fsp": ["methods=fsp"], "on top": ["methods=fsp", "FSP.on_top=True"], "ab": ["methods=ab", "AB.share=0.4"]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("phases")


@pytest.fixture(scope="module")
def results(run_all, runs):
    return {name: run_all(runs, *words)[-1] for name, words in WORDS.items()}


def lines(runs, result):
    return list(csv.DictReader((RunFolder(runs, result["run"]) / EPOCHS).open()))


def test_images_on_top_of_the_budget_are_in_the_result(runs, results):
    for name, result in results.items():
        steps = STEPS + (FIRST[name] if name == "on top" else 0)
        assert result["status"] == "finished", result.get("error")
        assert result["images_seen"] == result["passes.student"] == steps * STEP
        assert int(lines(runs, result)[-1]["images"]) == steps * STEP
    assert results["fsp"]["protocol"] == results["on top"]["protocol"]


def test_the_teacher_is_asked_in_the_first_phase_alone(results):
    assert {name: result["passes.teachers"] for name, result in results.items()} == {
        name: steps * STEP for name, steps in FIRST.items()
    }


def test_each_phase_has_its_own_terms_in_the_epochs(runs, results):
    first, _, last = lines(runs, results["ab"])
    assert float(first["loss.ab"]) > 0
    assert float(last["loss.ce"]) > 0
    assert last["loss.ab"] == ""


def test_training_costs_the_mean_over_the_phases_by_their_steps(results, flops_of):
    student, teacher = (flops_of(registry.build(name, 10, 1)) for name in ("resnet8", "resnet14"))
    # C_i × C_{i+1} products over all pixels of the smaller map, of both networks.
    relations = 2 * 2 * (16 * 16 * 64 + 16 * 32 * 16 + 32 * 64 * 4)
    for name, result in results.items():
        first, all_steps = FIRST[name], STEPS + (FIRST[name] if name == "on top" else 0)
        in_first = student + teacher + (0 if name == "ab" else relations)
        expected = (first * in_first + (all_steps - first) * student) / all_steps
        assert result["cost.flops_training"] == pytest.approx(expected, abs=1)
        assert result["cost.flops"] == student


@pytest.mark.parametrize("name", WORDS)
def test_stopped_before_at_and_after_the_switch_a_run_ends_in_the_same_bits(plan, runs, results, tmp_path, name):
    teacher, spec = plan(*WORDS[name])
    for after in (FIRST[name] - 1, FIRST[name], FIRST[name] + 1):
        elsewhere = tmp_path / str(after)
        elsewhere.mkdir()
        (elsewhere / teacher.id).symlink_to(runs / teacher.id)
        asked = iter(range(1, after))
        with pytest.raises(Stopped):
            run(spec, elsewhere, None, Caller(stop=lambda asked=asked: next(asked, None) is None))
        again = run(spec, elsewhere, None)
        assert again["weights.sha256"] == results[name]["weights.sha256"]
        assert again["images_seen"] == results[name]["images_seen"]
        assert again["passes.teachers"] == results[name]["passes.teachers"]


@pytest.mark.parametrize("name", ["fsp", "ab"])
def test_the_first_phase_reaches_all_of_the_student_but_its_classifier(make, batch, name):
    method = make(name)
    first, second = method.phases()
    sum(first.losses(batch(method)).values()).backward()
    reached = {name for name, parameter in method.named_parameters() if parameter.grad is not None}
    trained = {id(parameter) for parameter in first.trains}
    assert reached == {name for name, parameter in method.named_parameters() if id(parameter) in trained}
    assert not any(name.startswith("student.fc.") for name in reached)
    assert all(name.startswith(("student.", "connectors.")) for name in reached)
    assert second.losses is None


def test_ab_trains_connectors_where_the_widths_differ_and_in_the_first_phase_alone(make, batch):
    method = make("ab", teacher="resnet8x4")
    connectors = {id(parameter) for parameter in method.connectors.parameters()}
    assert connectors
    first, second = ({id(p) for p in phase.trains} for phase in method.phases())
    assert connectors <= first
    assert not connectors & second
    assert method.boundaries(batch(method))["ab"].isfinite()


def test_fsp_reads_the_stem_of_both_networks(make, batch):
    from kdbench.methods.fsp import fsp_loss

    method = make("fsp").eval()
    one = batch(method)
    ours, theirs = (net(one.images, features=("stem",)) for net in (method.student, method.teacher))
    assert torch.equal(ours.stem, method.student.stem(one.images))
    without = fsp_loss(ours.stages, theirs.stages)
    with_stem = fsp_loss([ours.stem, *ours.stages], [theirs.stem, *theirs.stages])
    assert method.relations(one)["fsp"].item() == pytest.approx(with_stem.item(), rel=1e-6)
    assert with_stem > without


def test_a_wider_teacher_ends_the_run_before_training_in_one_sentence(run_all, tmp_path):
    teacher, result = run_all(tmp_path, "methods=fsp", "teacher=resnet8x4")
    assert teacher["status"] == "finished"
    assert result["status"] == "failed"
    assert result["error"].startswith(
        "fsp needs a teacher as wide as the student, map by map: the stem and stages of the student"
    )
    assert not (RunFolder(tmp_path, result["run"]) / EPOCHS).exists()
    assert not (RunFolder(tmp_path, result["run"]) / CHECKPOINT).exists()


@pytest.mark.parametrize("name", ["fsp", "ab"])
def test_the_student_alone_is_kept(runs, results, name):
    content = checkpoint.load(RunFolder(runs, results[name]["run"]) / CHECKPOINT)
    assert content["backbone"] == "resnet8"
    assert not any(key.startswith(("student.", "connectors.")) for key in content["student"])
