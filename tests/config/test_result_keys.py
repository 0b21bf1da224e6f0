"""The keys and columns that measures declare."""

import re

import pytest

from kdbench.config import extensions, places, result_keys
from kdbench.errors import UserError
from kdbench.report.tables import columns

pytestmark = pytest.mark.usefixtures("own_plugins")

KEY = "'mine.x': ('float', 'nats', 'a number')"
COLUMN = "'mine': {'key': 'mine.x', 'title': 'Mine', 'about': 'a number'}"


def declare(root, keys=KEY, columns=COLUMN, name="mine"):
    folder = root / "measures"
    folder.mkdir(parents=True, exist_ok=True)
    table = f"MEASURES = {{'{name}': ('measure', {{'keys': {{{keys}}}, 'columns': {{{columns}}}}})}}"
    (folder / f"{name}.py").write_text(f"{table}\ndef measure(evaluation): return {{'mine.x': 1.5}}\n")
    places.add_plugins([str(root)])
    return folder / f"{name}.py"


def test_the_keys_of_kdbenchs_own_measures():
    keys = result_keys.declared()
    assert keys["calibration.ece"].unit == "percent"
    assert keys["convergence.images.*"].type == "int"
    assert result_keys.is_declared("robustness.noise.0.1", keys)
    assert not result_keys.is_declared("robustness.other", keys)


def test_the_columns_of_kdbenchs_own_measures_are_shown_as_ever():
    ece, nll, fog = map(columns.find, ("ece", "nll", "corruption.fog"))
    assert (ece.key, ece.title, ece.better, ece.digits, ece.unit) == ("calibration.ece", "ECE %", "lower", 2, "percent")
    assert (nll.key, nll.digits, nll.unit) == ("calibration.nll", 3, "nats")
    assert (fog.key, fog.title, fog.better) == ("robustness.corruption.fog", "fog %", "higher")
    to, seconds = columns.find("images_to.60"), columns.find("seconds_to.60")
    assert (to.key, to.title, to.digits, to.unit, to.spread) == (
        "convergence.images.60", "Images to 60 %", None, "images", False,
    )  # fmt: skip
    assert (seconds.key, seconds.digits, seconds.unit) == ("convergence.seconds.60", 1, "seconds")
    assert columns.find("agreement").taught


def test_a_column_of_a_plugin(tmp_path):
    declare(tmp_path)
    assert columns.find("mine").unit == "nats"
    assert columns.find("delta.mine").title == "Δ ce Mine"


@pytest.mark.parametrize(
    ("keys", "column", "sentence"),
    [
        ("", "", "the measure 'mine' declares no 'keys'"),
        ("'other.x': ('float', 'nats', 'a number')", "", "the key 'other.x' must begin with 'mine.'"),
        ("'mine.x': 'float'", "", "the key 'mine.x' must be a string with (type, unit, meaning)"),
        ("'mine.x': ('flaot', 'nats', 'a number')", "", "with type float or int, not ('flaot'"),
        (KEY, "'mine': {'key': 'mine.x'}", "the column 'mine' has no 'title'"),
        (KEY, COLUMN.replace("mine.x", "mine.y"), "the column 'mine': unknown key 'mine.y'; did you mean 'mine.x'?"),
        (KEY, COLUMN.replace("'about'", "'digit': 2, 'about'"), "unknown field 'digit'; did you mean 'digits'?"),
        (KEY, COLUMN.replace("'about'", "'digits': '2', 'about'"), "'digits' cannot be '2'"),
        (KEY, COLUMN.replace("'about'", "'better': 'more', 'about'"), "'better' must be 'higher', 'lower' or ''"),
        (KEY, COLUMN.replace("'mine':", "'mine.*':"), "its name must end in .* if its key does, and only then"),
        (KEY, COLUMN.replace("'mine':", "'ece':"), "the column 'ece' is declared twice"),
    ],
)
def test_a_wrong_declaration_is_named_in_one_sentence(tmp_path, keys, column, sentence):
    path = declare(tmp_path, keys, column)
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        result_keys.columns()
    assert str(path) in str(error.value)


def test_names_that_are_taken_are_refused(tmp_path):
    path = declare(tmp_path / "a", "'cost.x': ('float', 'nats', 'a number')", "", "cost")
    with pytest.raises(UserError, match=re.escape(f"{path}: kdbench itself writes 'cost.*'")):
        result_keys.declared()
    path.unlink()
    declare(tmp_path / "b", columns=COLUMN.replace("'mine':", "'accuracy':"))
    extensions._members.cache_clear()
    result_keys._by_measure.cache_clear()
    with pytest.raises(UserError, match="the column 'accuracy', which exists already"):
        columns.find("mine")
