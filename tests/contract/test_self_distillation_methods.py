"""DKS and SLA+SD: branches of fresh stages with their exits, and rotations that are counted as passes."""

import pytest

from kdbench.errors import RunError
from kdbench.measures import cost
from kdbench.run.group import Group
from kdbench.run.loop.passes import Passes


@pytest.fixture(scope="module")
def results(run_all, tmp_path_factory):
    done = run_all(tmp_path_factory.mktemp("self"), "methods=dks,sla_sd,ce")
    assert all(result["status"] == "finished" for result in done), [result.get("error") for result in done]
    return {result["method"]: result for result in done}


def test_dks_reports_its_exits_and_deploys_the_student_alone(results):
    assert {key for key in results["dks"] if key.startswith("exits.")} == {
        "exits.branch1", "exits.branch2", "exits.ensemble",
    }  # fmt: skip
    assert results["dks"]["cost.parameters"] == results["ce"]["cost.parameters"]
    assert results["dks"]["cost.flops"] == results["ce"]["cost.flops"]


def test_dks_trains_and_pays_for_its_branches(results, make):
    method = make("dks")
    stages = method.student.stage_modules()
    later = [sum(cost.parameters(stage) for stage in stages[first:]) + 64 * 10 + 10 for first in (1, 2)]
    assert results["dks"]["cost.parameters_training"] == results["dks"]["cost.parameters"] + sum(later)
    flops = [results["dks"][f"cost.flops.{name}"] for name in ("branch1", "branch2", "ensemble")]
    assert flops[0] == flops[1] == results["dks"]["cost.flops"], "each runs what the main path runs, in its own copy"
    assert results["dks"]["cost.flops.ensemble"] == results["dks"]["cost.flops_training"]
    assert results["dks"]["passes.student"] == results["dks"]["images_seen"] == results["ce"]["images_seen"]


def test_four_rotations_are_paid_for(results):
    images, steps = results["sla_sd"]["images_seen"], 3 * 72 // 16
    assert images == results["sla_sd"]["passes.student"] == steps * 16 == results["ce"]["images_seen"]
    assert results["sla_sd"]["cost.flops_training"] == results["ce"]["cost.flops_training"] + 2 * 64 * 40


@pytest.mark.parametrize(("declared", "word"), [(None, "1 image"), (3, "3 images"), (8, "8 images")])
def test_a_wrong_declaration_is_refused(make, batch, declared, word):
    method = make("sla_sd")
    wrong = type("Wrong", (type(method),), {"passes": declared})
    method.__class__ = wrong
    passes, one = Passes(method, Group()), batch(method)
    with passes.counted():
        method.losses(one)
    with pytest.raises(RunError, match=f"Wrong declares {word} through the student for each anchor, but 4 pass"):
        passes.check(len(one.images), declared or 1)
