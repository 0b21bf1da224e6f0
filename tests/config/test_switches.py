from dataclasses import replace

import pytest

from kdbench.config import places
from kdbench.config.bindings import of_command_line
from kdbench.config.resolve import resolve
from kdbench.config.settings import Augment
from kdbench.config.switches import Control, Strong
from kdbench.errors import UserError
from kdbench.plan import expand, request


def with_words(*words, recipe="quick"):
    return resolve("ce", "digits", recipe, of_command_line(words))


def identity(config):
    return config.protocol(), config.defines(), config.text()


def test_at_their_defaults_the_values_leave_no_trace():
    plain = with_words()
    assert "Strong" not in plain.text()
    assert "Augment.policy" not in plain.text()
    given = with_words(
        "Augment.policy='none'",
        "Augment.erasing=0.0",
        "Augment.magnitude=9",
        "Strong.operations=2",
        "Strong.policy='randaugment'",
        "Strong.cutout=0.5",
    )
    assert identity(given) == identity(plain)
    assert given.overrides() == {}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("Strong.operations=3", 3),
        ("Strong.policy='trivialaugment'", "trivialaugment"),
        ("Strong.cutout=0.0", 0.0),
        ("Augment.policy='autoaugment'", "autoaugment"),
        ("Augment.erasing=0.5", 0.5),
    ],
)
def test_any_other_value_is_part_of_the_protocol_of_every_method(word, value):
    plain, changed = with_words(), with_words(word)
    assert changed.protocol() != plain.protocol()
    assert changed.overrides() == {word.partition("=")[0]: value}
    assert word.partition("=")[0] in changed.text()
    assert resolve("kd", "digits", "quick", of_command_line([word])).protocol() == changed.protocol()


@pytest.mark.usefixtures("own_plugins")
def test_a_recipe_binds_them_and_the_command_line_can_go_back(tmp_path, monkeypatch):
    folder = tmp_path / "gin" / "recipe"
    folder.mkdir(parents=True)
    (folder / "far.gin").write_text("include 'recipe/quick.gin'\nStrong.operations = 3\nStrong.magnitude = 9\n")
    monkeypatch.setenv("KDBENCH_PLUGINS", str(tmp_path))
    places.add_plugins([])
    far, back = with_words(recipe="far"), with_words("Strong.operations=2", recipe="far")
    assert far.protocol() == with_words("Strong.operations=3").protocol()
    assert "Strong.magnitude" not in far.text()
    assert far.overrides() == {}
    assert back.protocol() == with_words().protocol()
    assert back.overrides() == {"Strong.operations": 2}  # the command that repeats the run needs it


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("Strong.policy='randagment'", "did you mean 'randaugment'"),
        ("Strong.operations=-1", "Strong.operations must be at least 0"),
        ("Strong.magnitude=31", "Strong.magnitude must be between 0 and 30"),
        ("Strong.cutout=8", "Strong.cutout must be between 0 and 1"),
        ("Strong.operation=3", "operations"),
        ("Augment.policy='autoaugmant'", "did you mean 'autoaugment'"),
        ("Augment.operations=3", r"require Augment\.policy='randaugment'"),
        ("Augment.erasing=2", r"Augment\.erasing must be between 0 and 1"),
        ("Augment.erasing_max_area=0.3", r"Augment\.erasing_max_area has no effect without Augment\.erasing"),
    ],
)
def test_values_out_of_range_are_refused(word, message):
    with pytest.raises(UserError, match=message):
        with_words(word)


def test_trivialaugment_takes_no_values_of_randaugment():
    with pytest.raises(UserError, match=r"require Strong\.policy='randaugment'"):
        with_words("Strong.policy='trivialaugment'", "Strong.operations=3")
    assert Strong(policy="trivialaugment").policy == "trivialaugment"


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("ce_cutout", "cutout", 0.25),
        ("ce_random_erasing", "erasing", 0.5),
        ("ce_randaugment", "policy", "randaugment"),
        ("ce_trivialaugment", "policy", "trivialaugment"),
        ("ce_autoaugment", "policy", "autoaugment"),
    ],
)
def test_a_control_has_an_augmentation_of_its_own_in_the_protocol_of_others(name, key, value):
    spec, plain = expand.plan(request.parse([f"methods={name},ce", "dataset=digits"]))
    assert (spec.method, spec.control, plain.control) == (name, {key: value}, {})
    assert spec.protocol == plain.protocol
    control = resolve(name, "digits", "quick", of_command_line([])).control()
    recipe = Augment(padding=0.25, fill=3, flip=True, cutout=0.5, erasing=0.1)
    changed = recipe.changed_by(control)
    assert getattr(changed, key) == value
    assert replace(changed, **{key: getattr(recipe, key)}) == recipe
    assert recipe.changed_by(Control()) == recipe


def test_a_control_with_a_policy_leaves_the_recipes_values_of_randaugment():
    recipe = Augment(0.25, 3, True, 0.5, policy="randaugment", operations=3, magnitude=12, random_magnitude=True)
    changed = recipe.changed_by(Control(policy="trivialaugment"))
    assert (changed.policy, changed.operations, changed.magnitude, changed.random_magnitude) == (
        "trivialaugment",
        2,
        9,
        False,
    )
    assert recipe.changed_by(Control(policy="none")).policy == "none"


@pytest.mark.parametrize("given", [{"cutout": 2.0}, {"erasing": -1.0}])
def test_a_control_out_of_range_is_refused(given):
    with pytest.raises(ValueError, match=r"Control\.(cutout|erasing) must be between 0 and 1"):
        Control(**given)
