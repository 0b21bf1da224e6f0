"""Two processes with gloo against one. They are started once; what they do is in ranks.py."""

import csv
from pathlib import Path

import pytest
import torch

from kdbench.config import bindings, resolve
from kdbench.errors import RunError, UserError
from kdbench.method.share import Share
from kdbench.plan import expand, request
from kdbench.run.group import Group, checksum
from kdbench.store.folder import RunFolder

HERE = Path(__file__).parent
TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 0.01}


@pytest.fixture(scope="module")
def ranks(two_ranks, tmp_path_factory):
    """What both ranks left, and their folder."""
    folder = tmp_path_factory.mktemp("ranks")
    return two_ranks(HERE / "ranks.py", folder), folder


def relative(found, expected):
    """Largest difference over the largest value."""
    found, expected = found.double(), expected.double()
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30)).item()


def test_two_processes_train_as_one_does(ranks):
    """Losses of every step and all state after the last, for the methods of the demo, also where a batch does not divide."""
    (first, second), _ = ranks
    whole = {**first["whole"], **second["whole"]}
    assert {name for name, *_ in whole} == {"byot", "ce", "corsd", "crd", "kd", "rkd"}
    for case, alone in whole.items():
        one, other = first["parts"][case], second["parts"][case]
        # SemCKD's attention is a steep function of the maps, so that rounding grows from step to step.
        bound = 0.02 if case == ("semckd", 13, "float32") else TOLERANCE[case[2]]
        assert relative(one.losses + other.losses, alone.losses) < bound, case
        assert one.state.keys() == alone.state.keys()
        for name, value in (
            alone.state.items() if case[2] != "bfloat16" else ()
        ):  # small values there are rounding alone
            assert relative(one.state[name], value) < bound, (case, name)
        assert one.seen == other.seen == alone.seen


def test_all_state_is_bit_equal_on_both_ranks(ranks):
    """Weights, running statistics, CRD's banks and CORSD's memory, and what is said of them."""
    (first, second), _ = ranks
    for case, one in first["parts"].items():
        other = second["parts"][case]
        assert one.sha256 == other.sha256, case
        assert (one.validation, one.best_epoch) == (other.validation, other.best_epoch)
    assert {"student_bank", "teacher_bank"} <= first["parts"]["crd", 13, "float64"].state.keys()
    assert "memory" in first["parts"]["corsd", 13, "float64"].state


@pytest.mark.parametrize(("case", "shares"), [(("ce", 13), (7, 6)), (("corsd", 13), (9, 6)), (("kd", 16), (8, 8))])
def test_the_ranks_share_the_images_of_one_process(ranks, case, shares):
    (first, second), _ = ranks
    case = (*case, "float64")
    alone = {**first["whole"], **second["whole"]}[case].images
    per_anchor = 3 if case[0] == "corsd" else 1
    for one, other, whole in zip(first["parts"][case].images, second["parts"][case].images, alone, strict=True):
        assert (len(one), len(other)) == shares
        blocks = [part.view(per_anchor, -1) for part in (one, other)]
        assert torch.equal(torch.cat(blocks, dim=1).flatten(), whole)


def test_gathered_rows_carry_the_gradient_of_the_whole_batch(ranks):
    results, _ = ranks
    for result in results:
        gather = result["gather"]
        assert relative(gather.found, gather.expected) < 1e-12
        assert torch.equal(gather.integers, torch.arange(21))
        assert gather.numbers.abs().max() < 1e-12, "mean of means, sum of sums"
        assert "gather takes rows in blocks of this rank's" in gather.refused


def test_normalisation_is_that_of_the_whole_batch(ranks):
    """Outputs, gradients and running statistics of nn.BatchNorm, with shares of 4 and 3 and of 3 and 2 images."""
    results, _ = ranks
    for result in results:
        for name, pairs in result["normalise"].items():
            bound = 1e-3 if "float32" in name else 1e-12
            assert len(pairs) == 14
            assert all(relative(found, expected) < bound for found, expected in pairs), name


def test_without_synchronised_normalisation_it_is_another_result(ranks):
    (first, second), _ = ranks
    apart = first["unsynchronised"].losses + second["unsynchronised"].losses
    together = {**first["whole"], **second["whole"]}["ce", 16, "float64"].losses
    assert relative(apart[1:], together[1:]) > 1e-3


def test_a_loss_that_breaks_on_one_rank_stops_both_at_the_same_step(ranks):
    sentences = {result["not finite"] for result in ranks[0]}
    assert len(sentences) == 1
    assert sentences.pop().startswith("the loss is not finite at step 1 (term extra); before anything was trained")


def test_ranks_that_do_not_start_alike_are_stopped(ranks):
    assert {r["unequal"] for r in ranks[0]} == {"the ranks are not the same on all 2 GPUs"}


def test_a_whole_run_is_that_of_one_process(ranks):
    """The teacher and its student; only the first rank writes."""
    (first, second), folder = ranks
    assert first["runs"] == second["runs"]
    for together, alone in zip(first["runs"], first["alone"], strict=True):
        assert (together["status"], alone["status"]) == ("finished", "finished")
        stored = RunFolder(folder / "together", together["run"])
        assert stored.result() == together
        assert "Machine.gpus = 2" in (stored / "config.gin").read_text()
        same = ("run", "protocol", "images_seen", "data.sha256", "cost.parameters")
        assert [together[key] for key in same] == [alone[key] for key in same]
        # Training amplifies rounding, and each processor rounds in its own way: what is equal is tested in float64 above.
        assert together["accuracy.last"] == pytest.approx(alone["accuracy.last"], abs=3)
        assert (together["provenance.gpus"], alone["provenance.gpus"]) == (2, 1)
        lines = [
            list(csv.DictReader((folder / name / together["run"] / "epochs.csv").open()))
            for name in ("together", "alone")
        ]
        assert len(lines[0]) == len(lines[1]) == 2
        for one, other in zip(*lines, strict=True):
            assert [one[key] for key in ("epoch", "images", "lr")] == [other[key] for key in ("epoch", "images", "lr")]
            assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=0.03)


def test_a_run_that_fails_says_so_in_both_processes(ranks):
    (first, second), folder = ranks
    assert first["failed"] == second["failed"]
    (failed,) = first["failed"]
    assert failed["error"].startswith("the loss is not finite at step")
    assert RunFolder(folder / "together", failed["run"]).result() == failed


def test_an_error_of_one_rank_alone_ends_the_others_and_is_what_the_result_says(ranks):
    (first, second), folder = ranks
    assert first["broken"] == second["broken"]
    (failed,) = first["broken"]
    assert failed["error"] == "MemoryError: rank 1 has no memory left"
    stored = RunFolder(folder / "together", failed["run"])
    assert stored.result() == failed
    assert (stored / "log.txt").read_text().count("Traceback") == 1


def test_a_run_of_several_that_is_started_alone_says_how_to_start_it(ranks):
    (few,) = ranks[0][0]["few"]
    assert few["error"].startswith("Machine.gpus=2 means 2 processes, which `python -m torch.distributed.run")


def test_a_share_of_nothing_is_refused():
    with pytest.raises(RunError, match="a step of 3 anchors cannot be shared by 4 GPUs"):
        Group(0, 4).share(3)


def test_outside_a_group_there_is_none_to_join(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RunError, match="not one of a group"), Group.from_environment("cpu"):
        pass


def test_a_single_process_gets_back_what_it_gives():
    share, x = Group().share(5), torch.randn(15, 2)
    assert type(share) is Share
    assert all(
        call(x) is x for call in (share.own, share.gather, share.mean, share.summed, share.weighted, Group().sum)
    )
    assert Group().from_first(lambda: 3.0) == 3.0


def test_a_checksum_sees_every_bit():
    state = [torch.randn(3, 4), torch.zeros(2, dtype=torch.bool), torch.tensor(3), torch.randn(5).bfloat16()]
    before = checksum(state)
    assert checksum([x.clone() for x in state]) == before
    for x in state:
        kept = x.clone()
        x.view(-1)[0] = not x.view(-1)[0] if x.dtype == torch.bool else x.view(-1)[0] * 1.1 + 1
        assert checksum(state) != before
        x.copy_(kept)


def one(*words):
    (spec,) = expand.plan(request.parse(["methods=ce", "dataset=digits", *words]))
    return spec


def test_the_number_of_gpus_is_in_the_configuration_and_not_in_the_id():
    alone, four = one(), one("gpus=4")
    assert (alone.gpus, four.gpus) == (1, 4)
    assert "Machine.gpus = 4" in four.config
    assert four == one("Machine.gpus=4")
    assert (four.id, four.protocol, four.values) == (alone.id, alone.protocol, alone.values)
    for words in (["Parallel.sync_bn=True"], ["Parallel.sync_bn=True", "gpus=4"], ["Parallel.sync_bn=False"]):
        assert one(*words).id == alone.id
        assert "Parallel" not in one(*words).config


def test_with_normalisation_apart_the_number_of_gpus_defines_the_result():
    alone, two, four = one(), one("gpus=2", "Parallel.sync_bn=False"), one("gpus=4", "Parallel.sync_bn=False")
    assert len({spec.id for spec in (alone, two, four)}) == 3
    assert len({spec.protocol for spec in (alone, two, four)}) == 3
    assert two.overrides == {"Machine.gpus": 2, "Parallel.sync_bn": False}
    words = two.command().split()[2:]
    assert one(*(word for word in words if not word.startswith(("methods=", "dataset=")))) == two
    assert "Parallel.sync_bn = False" in two.config


def test_no_gin_file_turns_synchronised_normalisation_off():
    assert "Parallel.sync_bn" not in {
        key for name in ("quick", "standard") for key in bindings.of_group("recipe", name)
    }
    assert resolve.resolve("ce", "digits", "quick").shared.keys().isdisjoint({"Parallel.sync_bn", "Selection.on_test"})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["gpus=four"], "Machine.gpus takes an integer such as 10, not 'four'"),
        (["gpus=0"], "Machine.gpus must be at least 1"),
        (["gpus=1,2"], "'gpus' takes one value, not 2"),
        (["gpus=2", "Machine.gpus=2"], "Machine.gpus is given twice on the command line"),
        (
            ["gpus=2", "Machine.device=cuda:1"],
            "Machine.device='cuda:1' names one GPU, but Machine.gpus=2 needs more",
        ),
    ],
)
def test_what_cannot_be_is_one_clear_sentence(words, sentence):
    with pytest.raises(UserError) as caught:
        one(*words)
    assert str(caught.value) == sentence
