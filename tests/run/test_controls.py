"""The controls and ablations do what they are there to show."""

import re

import pytest
import torch

from kdbench.config import bindings, places, resolve
from kdbench.config.switches import Control
from kdbench.errors import UserError
from kdbench.launch import local
from kdbench.plan import expand, request

SHORT = [
    *("dataset=digits", "student=resnet8", "teacher=resnet14", "Train.epochs=2", "Train.warmup=0"),
    "Measures.corruptions=False",
    "Measures.images=10",
]
WITH_KD = sorted(name for name in places.members("control") if name.endswith("_kd"))
"""Methods with the KD term of other papers' tables; they differ from the method in its weight alone, and are not trained here."""
TRAINED = ("ce", "kd", "byot", "corsd")
VARIANTS = sorted(
    name for name in places.members("method") if bindings.is_variant(name) and bindings.method_source(name) in TRAINED
)
"""Variants of other methods are tested next to these methods."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    words = [f"methods={','.join((*TRAINED, *VARIANTS))}", *SHORT]
    done = local.inline(expand.plan(request.parse(words)), tmp_path_factory.mktemp("runs"), None)
    return {r["method"]: r for r in done if r["student"] == "resnet8" and r["seed"] == 0}


@pytest.mark.exhaustive
def test_every_control_runs_in_the_same_protocol(results):
    assert set(results) >= set(VARIANTS)
    assert {r["status"] for r in results.values()} == {"finished"}
    assert len({r["protocol"] for r in results.values()}) == 1


@pytest.mark.exhaustive
def test_three_times_the_images_are_three_times_the_images(results):
    assert results["ce_3x"]["images_seen"] == pytest.approx(3 * results["ce"]["images_seen"], rel=0.1)
    assert results["ce_3x"]["control"] == '{"budget": 3.0}'
    assert results["ce"]["control"] == "{}"


@pytest.mark.exhaustive
def test_born_again_learns_from_an_equal_network_that_is_not_its_twin(results):
    taught = results["born_again"]
    assert taught["teacher"] == "resnet8"
    assert "-resnet8-s1000-" in taught["teacher.run"]
    assert taught["teacher.sha256"] != results["ce"]["weights.sha256"]


@pytest.mark.exhaustive
def test_a_random_teacher_knows_nothing_and_is_the_same_every_time(results, tmp_path):
    taught = results["kd_random_teacher"]
    assert taught["teacher"] == "resnet14 untrained"
    assert taught["teacher.run"] is None
    assert taught["teacher.accuracy"] < 30
    (spec,) = expand.plan(request.parse(["methods=kd_random_teacher", *SHORT, "seeds=1"]))
    (again,) = local.inline([spec], tmp_path, None)
    assert again["teacher.sha256"] == taught["teacher.sha256"]


@pytest.mark.exhaustive
def test_deep_supervision_reports_every_exit(results):
    assert set(results["deep_supervision"]) >= {"exits.exit1", "exits.exit2", "exits.ensemble"}


@pytest.mark.exhaustive
def test_triplets_alone_differ_from_ce_in_their_batches_only(results):
    assert results["corsd_triplets"]["weights.sha256"] != results["ce"]["weights.sha256"]
    ablations = [results[name]["weights.sha256"] for name in results if name.startswith("corsd")]
    assert len(set(ablations)) == len(ablations), "every part that is taken away must matter"


@pytest.mark.exhaustive
def test_the_hand_made_relation_has_nothing_to_train(results):
    assert results["corsd_l2"]["cost.parameters_training"] == results["corsd_l2"]["cost.parameters"]
    assert results["corsd"]["cost.parameters_training"] > results["corsd"]["cost.parameters"]


def test_deep_supervision_is_the_sum_of_cross_entropies(make, batch):
    method = make("byot", alpha=0.0, beta=0.0)
    given = batch(method)
    terms = method.losses(given)
    logits = [*method.exits(given.images).values(), method.student(given.images)]
    expected = sum(torch.nn.functional.cross_entropy(z, given.labels) for z in logits)
    assert sum(terms.values()).item() == pytest.approx(expected.item(), rel=1e-5)


def test_methods_with_kd_differ_from_the_method_in_the_weight_of_kd_alone(make, batch, gin_parameters):
    for name in WITH_KD:
        source = bindings.method_source(name)
        assert name == f"{source}_kd"
        values, usual = gin_parameters(name), gin_parameters(source)
        assert {key: value for key, value in values.items() if value != usual[key]} == {"kd_weight": 1.0}
        assert usual["kd_weight"] == 0.0
        method = make(source, **values)
        terms = method.losses(batch(method))
        assert terms["kd"].isfinite(), name


def test_l2_relation_by_hand():
    from kdbench.methods.corsd import L2Relation

    first = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0]]).reshape(3, 2, 1, 1).requires_grad_()
    second = torch.tensor([[6.0, 8.0], [0.0, 5.0], [1.0, 1.0]]).reshape(3, 2, 1, 1)
    scores, logits = L2Relation()(first, second)
    assert logits is None
    assert scores.tolist() == pytest.approx([0.0, 1.0, (2 - 2**0.5) ** 0.5 / 2**0.5], abs=1e-6)
    scores.sum().backward()
    assert first.grad.isfinite().all(), "also where two maps coincide"


def test_l2_relation_with_auxiliary_weights_is_refused(make):
    with pytest.raises(ValueError, match="has no auxiliary classifiers"):
        make("corsd", relation="l2")


def test_only_a_gin_file_can_make_a_control():
    with pytest.raises(UserError, match=r"Control\.\* can be bound in a method's gin file only"):
        request.parse(["methods=ce", "Control.budget=3"])
    assert resolve.resolve("ce", "digits", "quick").control() == Control("selected", 1.0)


@pytest.mark.parametrize("sweep", sorted(places.members("sweep")))
def test_every_sweep_gives_a_plan(sweep):
    assert expand.plan(request.parse([f"sweep={sweep}"]))


def test_the_ablation_sweep_holds_every_control_of_corsd_and_byot():
    planned = {s.method for s in expand.plan(request.parse(["sweep=corsd_ablation"]))}
    controls = {name for name in places.members("control") if bindings.method_source(name) in ("byot", "corsd")}
    assert len(controls) > 6
    assert planned >= controls | {"ce_smooth", "ce_3x", "born_again", "kd_random_teacher"}


def test_the_sweep_of_neighbours_holds_every_variant_of_corsd():
    named = set(re.findall(r"'(\w+)'", places.members("sweep")["corsd_neighbours"].read_text()))
    variants = {name for name in places.members("control") if bindings.method_source(name) == "corsd"}
    assert named >= variants | {"ce", "ce_2x", "ce_3x", "ce_4x", "corsd"}
