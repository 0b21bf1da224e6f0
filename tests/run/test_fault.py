import pytest

from kdbench.config import places
from kdbench.errors import RunError, UserError
from kdbench.run import fault

pytestmark = pytest.mark.usefixtures("own_plugins")


def caught(path, code):
    try:
        exec(compile(code, str(path), "exec"), {"RunError": RunError, "UserError": UserError})
    except Exception as error:
        return error


@pytest.fixture
def plugin(tmp_path):
    (tmp_path / "mine" / "methods").mkdir(parents=True)
    places.add_plugins([str(tmp_path / "mine")])
    return tmp_path / "mine" / "methods" / "odd.py"


@pytest.mark.parametrize(
    ("raised", "sentence"),
    [
        ("missing", "NameError: name 'missing' is not defined (Odd.losses, mine/methods/odd.py:3)"),
        ("{}['x']", "KeyError: 'x' (Odd.losses, mine/methods/odd.py:3)"),
        ("exec(\"raise ValueError('two\\\\nlines')\")", "ValueError: two lines (Odd.losses, mine/methods/odd.py:3)"),
        ("(_ for _ in ()).throw(RunError('a sentence'))", "a sentence (Odd.losses, mine/methods/odd.py:3)"),
        ("(_ for _ in ()).throw(AssertionError())", "AssertionError (Odd.losses, mine/methods/odd.py:3)"),
    ],
)
def test_an_error_names_the_line_of_the_users_file(plugin, raised, sentence):
    code = f"class Odd:\n  def losses(self):\n    {raised}\nOdd().losses()\n"
    shown = fault.sentence(caught(plugin, code))
    assert shown.replace("Odd.losses.<locals>.<genexpr>", "Odd.losses") == sentence


def test_an_error_that_no_users_code_is_part_of_has_no_place():
    assert fault.sentence(RunError("a sentence")) == "a sentence"
    assert fault.sentence(caught("/elsewhere.py", "1 / 0")) == "ZeroDivisionError: division by zero"


def test_a_sentence_of_a_method_of_kdbench_itself_is_left_alone():
    path = places.own_root() / "methods" / "kd.py"
    assert fault.sentence(caught(path, "raise RunError('a sentence')")) == "a sentence"
    assert fault.sentence(caught(path, "1 / 0")).endswith("(<module>, methods/kd.py:1)")
