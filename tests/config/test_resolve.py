import gin
import pytest

from kdbench import methods
from kdbench.config import places, settings, signature
from kdbench.config import resolve as resolve_
from kdbench.config.bindings import of_command_line
from kdbench.config.resolve import resolve
from kdbench.errors import UserError

pytestmark = pytest.mark.usefixtures("own_plugins")

RECIPES = sorted(places.members("recipe"))
EVERY = [
    *(
        (method, "digits", RECIPES[place % len(RECIPES)])
        for place, method in enumerate(sorted(places.members("method")))
    ),
    *(("ce", "digits", recipe) for recipe in RECIPES),
    *(("ce", dataset, "standard") for dataset in places.members("dataset")),
]
"""Methods, recipes and datasets bind other configurables, so their product would tell nothing more."""


@pytest.mark.parametrize(("method", "dataset", "recipe"), EVERY)
def test_every_configuration_that_comes_with_kdbench_is_complete(method, dataset, recipe):
    assert resolve(method, dataset, recipe).text()


@pytest.mark.parametrize(("method", "needs_teacher"), [("ce", False), ("kd", True), ("born_again", True)])
def test_a_configuration_has_the_signature_of_its_method(method, needs_teacher):
    config = resolve(method, "digits", "quick")
    assert config.signature == signature.of_method(config.source)
    assert config.needs_teacher is needs_teacher


def test_the_text_gives_the_same_values_through_gin_itself():
    resolved = resolve("kd", "digits", "corsd_paper", of_command_line(["SGD.lr=0.03"]))
    methods.load("kd")
    gin.clear_config()
    gin.parse_config(resolved.text())
    train, sgd = settings.Train(), settings.SGD()
    assert (train.epochs, train.batch_size, sgd.lr) == (300.0, 128, 0.03)
    assert train.schedule(0.3) == pytest.approx(1.0)
    assert gin.query_parameter("KD.temperature") == 4.0
    gin.clear_config()


def test_the_protocol_is_what_all_methods_share_and_nothing_else():
    base = resolve("kd", "digits", "quick").protocol()
    assert resolve("crd", "digits", "quick").protocol() == base
    assert resolve("kd", "digits", "quick", of_command_line(["KD.temperature=2"])).protocol() == base
    assert (
        resolve("kd", "digits", "quick", of_command_line(["Machine.device=cpu", "Machine.threads=1"])).protocol()
        == base
    )
    for different in ("Train.epochs=7", "SGD.lr=0.2", "Split.validation=0.1", "Dataset.mean=(0.5,)"):
        assert resolve("kd", "digits", "quick", of_command_line([different])).protocol() != base
    assert resolve("kd", "digits", "smoke").protocol() != base


def test_no_gin_file_can_let_the_test_set_choose(root_with):
    root_with(recipe__peek="include 'recipe/standard.gin'\nSelection.on_test = True\n")
    with pytest.raises(UserError, match=r"the recipe 'peek' binds Selection.on_test, which does not belong to it"):
        resolve("ce", "digits", "peek")
    switched = resolve("ce", "digits", "quick", of_command_line(["Selection.on_test=True"]))
    assert switched.protocol() != resolve("ce", "digits", "quick").protocol()


def test_an_override_of_the_value_that_stands_there_changes_nothing():
    changed = resolve("kd", "digits", "quick", of_command_line(["KD.temperature=4", "Train.epochs=60"]))
    assert changed.overrides() == {}
    assert changed.own_overrides() == {}
    assert changed.defines() == resolve("kd", "digits", "quick").defines()


def test_overrides_are_told_apart_by_whose_they_are():
    config = resolve(
        "kd", "digits", "quick", of_command_line(["KD.temperature=2", "Train.epochs=5", "RKD.angle_weight=1"])
    )
    assert config.own_overrides() == {"KD.temperature": 2.0}
    assert config.overrides() == {"Train.epochs": 5.0}
    assert "RKD.angle_weight" not in config.defines()


def test_another_schedule_leaves_nothing_of_the_first_behind():
    config = resolve("ce", "digits", "repdistiller")
    assert {key for key in config.shared if key.startswith(("Cosine", "MultiStep"))} == {
        "MultiStep.gamma",
        "MultiStep.milestones",
    }


def test_a_schedule_chosen_on_the_command_line_needs_its_values():
    with pytest.raises(UserError, match=r"does not set MultiStep\.milestones"):
        resolve("ce", "digits", "standard", of_command_line(["Train.schedule=MultiStep"]))
    given = ["Train.schedule=MultiStep", "MultiStep.milestones=(0.5,)", "MultiStep.gamma=0.1"]
    assert "MultiStep.gamma" in resolve("ce", "digits", "standard", of_command_line(given)).shared


@pytest.mark.parametrize(
    "override",
    [
        "Train.epochs=-1",
        "SGD.momentum=1",
        "Split.validation=1",
        "Augment.fill=300",
        "Train.warmup=60",
    ],
)
def test_values_out_of_range_are_seen_before_anything_starts(override):
    overrides = of_command_line([override])
    with pytest.raises(UserError) as caught:
        resolve("ce", "digits", "quick", overrides)
    assert override.split("=")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_that_a_configuration_does_not_contain_is_unused():
    overrides = of_command_line(["MultiStep.gamma=0", "SGD.lr=1", "KD.temperature=2"])
    unused = resolve_.unused(overrides, [resolve("ce", "digits", "quick", overrides)])
    assert [b.key for b in unused] == ["MultiStep.gamma", "KD.temperature"]


def test_an_incomplete_recipe_is_refused(root_with):
    root_with(recipe__thin="Train.epochs = 1\n")
    with pytest.raises(UserError, match="the recipe 'thin' does not set"):
        resolve("ce", "digits", "thin")


@pytest.mark.parametrize(("epochs", "warmup"), [(60, 2.0), (3, 2.0), (2, 2 / 30), (0.3, 0.01)])
def test_a_warm_up_of_the_recipe_that_does_not_fit_keeps_its_share_of_the_budget(epochs, warmup):
    config = resolve("ce", "digits", "quick", of_command_line([f"Train.epochs={epochs}"]))
    assert config.every()["Train.warmup"].value == pytest.approx(warmup)
    assert set(config.overrides()) <= {"Train.epochs"}, "the command line did not change the warm-up"


def test_a_warm_up_of_the_command_line_that_does_not_fit_is_refused_with_one_that_does():
    with pytest.raises(UserError, match=r"Train.warmup=2 does not fit into Train.epochs=1.5; .* Train.warmup=0.15"):
        resolve("ce", "digits", "quick", of_command_line(["Train.epochs=1.5", "Train.warmup=2"]))


def test_another_optimiser_leaves_nothing_of_the_first_behind():
    config = resolve("ce", "digits", "adamw")
    assert {key.partition(".")[0] for key in config.shared} >= {"AdamW", "Train"}
    assert not any(key.startswith("SGD") for key in config.shared)
    overrides = of_command_line(["SGD.lr=1", "AdamW.lr=1e-3"])
    assert [b.key for b in resolve_.unused(overrides, [resolve("ce", "digits", "adamw", overrides)])] == ["SGD.lr"]
    assert [b.key for b in resolve_.unused(overrides, [resolve("ce", "digits", "quick", overrides)])] == ["AdamW.lr"]


def test_an_optimiser_chosen_on_the_command_line_needs_its_values():
    with pytest.raises(UserError, match=r"does not set AdamW\.lr"):
        resolve("ce", "digits", "standard", of_command_line(["Train.optimiser=adamw"]))
    given = [
        "Train.optimiser=adamw",
        "AdamW.lr=1e-3",
        "AdamW.betas=(0.9,0.99)",
        "AdamW.weight_decay=0",
        "AdamW.decay_vectors=True",
    ]
    assert "AdamW.betas" in resolve("ce", "digits", "standard", of_command_line(given)).shared


def test_a_recipe_that_binds_an_optimiser_it_does_not_use_is_refused(root_with):
    root_with(recipe__odd="include 'recipe/standard.gin'\nAdamW.lr = 0.1\n")
    with pytest.raises(UserError, match=r"odd.gin:2: nothing uses AdamW.lr: Train.optimiser is 'sgd'"):
        resolve("ce", "digits", "odd")
    root_with(recipe__even="include 'recipe/adamw.gin'\nSGD.lr = 0.1\n")
    with pytest.raises(UserError, match=r"even.gin:2: nothing uses SGD.lr: Train.optimiser is 'adamw'"):
        resolve("ce", "digits", "even")


def test_the_usual_optimiser_and_a_whole_batch_leave_no_trace():
    usual, words = resolve("kd", "digits", "quick"), ["Train.optimiser=sgd", "Train.accumulate=1"]
    named = resolve("kd", "digits", "quick", of_command_line(words))
    assert named.defines() == usual.defines()
    assert not {"Train.optimiser", "Train.accumulate"} & set(usual.defines())
    parts = resolve("kd", "digits", "quick", of_command_line(["Train.accumulate=2"]))
    assert parts.protocol() != usual.protocol()


def test_parts_of_a_batch_are_refused_where_the_whole_is_needed(root_with):
    with pytest.raises(UserError, match=r"Train.accumulate=2 requires Machine.gpus=1"):
        resolve("kd", "digits", "quick", of_command_line(["Train.accumulate=2", "Machine.gpus=2"]))
    with pytest.raises(UserError, match=r"Train.accumulate must be between 1 and 16, so that each part"):
        resolve("kd", "digits", "quick", of_command_line(["Train.accumulate=17"]))
