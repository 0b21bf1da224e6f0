import pytest

from kdbench.config import bindings
from kdbench.config.resolve import resolve
from kdbench.errors import UserError

pytestmark = pytest.mark.usefixtures("own_plugins")


def test_a_variant_is_another_methods_class_under_its_own_name(root_with):
    root_with(method__kd_cold="include 'method/kd.gin'\nKD.temperature = 1.0\n")
    cold = resolve("kd_cold", "digits", "quick")
    assert (cold.method, cold.source, cold.own["KD.temperature"].value) == ("kd_cold", "kd", 1.0)
    assert bindings.is_variant("kd_cold")
    assert cold.own_overrides() == {}


def test_a_method_file_that_binds_what_is_shared_is_refused(root_with):
    root_with(method__kd_long="include 'method/kd.gin'\nTrain.epochs = 400\n")
    with pytest.raises(
        UserError, match=r"the method 'kd_long' binds Train.epochs, which does not belong to it; it may bind KD"
    ):
        resolve("kd_long", "digits", "quick")


def test_a_recipe_that_binds_a_schedule_it_does_not_use_is_refused(root_with):
    root_with(recipe__odd="include 'recipe/standard.gin'\nMultiStep.gamma = 0.1\n")
    with pytest.raises(
        UserError, match=r"recipe/odd.gin:2: nothing uses MultiStep.gamma: Train.schedule is @Cosine\(\)"
    ):
        resolve("ce", "digits", "odd")


def test_a_profile_is_a_group_of_its_own(root_with):
    assert bindings.of_group("cluster", "default")["Cluster.max_requeues"].value >= 0
    with pytest.raises(UserError, match="unknown cluster 'defualt'; did you mean 'default'"):
        bindings.of_group("cluster", "defualt")


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["SGD.lr=1", "SGD.lr=2"], "SGD.lr is given twice on the command line"),
        (["Defaults.recipe=quick"], "Defaults.* can be bound in a dataset's gin file only"),
        (["SGD.rate=1"], "unknown parameter of SGD 'rate'"),
    ],
)
def test_wrong_bindings_of_the_command_line(texts, sentence):
    with pytest.raises(UserError) as caught:
        bindings.of_command_line(texts)
    assert str(caught.value).startswith(sentence)
