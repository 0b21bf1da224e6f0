import pytest

from kdbench.config import places
from kdbench.config.bindings import of_command_line
from kdbench.config.resolve import resolve
from kdbench.config.switches import Strong
from kdbench.errors import UserError


def with_words(*words, recipe="quick"):
    return resolve("ce", "digits", recipe, of_command_line(words))


def identity(config):
    return config.protocol(), config.defines(), config.text()


def test_at_their_defaults_the_values_leave_no_trace():
    plain = with_words()
    assert "Strong" not in plain.text()
    given = with_words("Strong.operations=2", "Strong.policy='randaugment'", "Strong.cutout=0.5")
    assert identity(given) == identity(plain)
    assert given.overrides() == {}


@pytest.mark.parametrize(
    ("word", "value"),
    [("Strong.operations=3", 3), ("Strong.policy='trivialaugment'", "trivialaugment"), ("Strong.cutout=0.0", 0.0)],
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
    ],
)
def test_values_out_of_range_are_refused(word, message):
    with pytest.raises(UserError, match=message):
        with_words(word)


def test_trivialaugment_takes_no_values_of_randaugment():
    with pytest.raises(UserError, match=r"require Strong\.policy='randaugment'"):
        with_words("Strong.policy='trivialaugment'", "Strong.operations=3")
    assert Strong(policy="trivialaugment").policy == "trivialaugment"
