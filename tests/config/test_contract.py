"""Mistakes in the source of a method: each is refused by one sentence with file and line, and nothing is executed."""

import re

import pytest
import torch
from torch import nn

from kdbench.config import contract, places, signature
from kdbench.errors import UserError
from kdbench.method import Method

pytestmark = pytest.mark.usefixtures("own_plugins")

LOSSES = "    def losses(self, batch): return {}\n"


@pytest.fixture
def read(tmp_path):
    """The signature of a method file with this text."""

    def of(text, **others):
        for name, content in {"odd": text, **others}.items():
            path = tmp_path / "methods" / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        places.add_plugins([str(tmp_path)])
        return signature.of_method("odd")

    return of


def method(body, head="from kdbench.method import Method\n", base="Method"):
    return f"{head}class Odd({base}):\n{body}"


@pytest.mark.parametrize(
    ("body", "line", "sentence"),
    [
        (
            f"    weight: float = 0.5\n{LOSSES}",
            3,
            "write 'weight: float' here, and 'Odd.weight = 0.5' in the method's gin",
        ),
        (f"    kept = []\n{LOSSES}", 3, "'kept' of Odd is shared by all runs of a process"),
        (f"    kept = dict()\n{LOSSES}", 3, "make it in setup(self)"),
        (f"    weight: flaot\n{LOSSES}", 3, "unknown type 'flaot'; did you mean 'float'?"),
        (f"    weight: complex\n{LOSSES}", 3, "the field 'weight' of Odd is complex, but a parameter is a number"),
        (f"    weight: set[int]\n{LOSSES}", 3, "is set[int], but a parameter is a number"),
        (f"    type: float\n{LOSSES}", 3, "the field 'type' of Odd has a name that every method uses itself"),
        (f"    needs_teacher: bool\n{LOSSES}", 3, "'needs_teacher' of Odd has no value; write one"),
        (f"    needs_teacher = not False\n{LOSSES}", 3, "'needs_teacher' of Odd must be a literal such as True"),
        (f"    images_per_anchor = 0\n{LOSSES}", 3, "'images_per_anchor' of Odd must be a literal such as 2"),
        (f"    views = 'strong'\n{LOSSES}", 3, "'views' of Odd must be a literal such as ('recipe', 'strong')"),
        ("    def losses(self): return {}\n", 3, "must be 'def losses(self, batch)', not 'def losses(self)'"),
        ("    async def losses(self, batch): return {}\n", 3, "must be 'def losses(self, batch)', not 'async def"),
        (f"{LOSSES}    def after_step(self): pass\n", 4, "must be 'def after_step(self, batch)'"),
        (f"{LOSSES}    def setup(self, width): pass\n", 4, "must be 'def setup(self)'"),
        (f"    def __init__(self, *a, **k): super().__init__(*a, **k)\n{LOSSES}", 3, "build modules in setup(self)"),
        ("    def loss(self, batch): return {}\n", 2, "has no losses(self, batch); did you mean 'loss' to be it?"),
        ("    pass\n\ndef losses(self, batch): return {}\n", 2, "is it indented as part of the class?"),
        ("    def losses(self, batch):\n        return self.teach(batch)\n", 4, "write needs_teacher = True"),
        ("    def losses(self, batch):\n        return self.teacher.fc\n", 4, "Odd.losses uses self.teacher, but Odd"),
    ],
)
def test_a_mistake_in_the_class_is_named_with_file_and_line(read, tmp_path, body, line, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        read(method(body))
    assert str(error.value).startswith(f"{tmp_path / 'methods' / 'odd.py'}:{line}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ("import not_installed_here\n", "odd.py:2 imports 'not_installed_here', which is not installed here"),
        ("from kdbench.methods.kdd import KD\n", "odd.py:2: unknown method file 'methods/kdd.py'; did you mean"),
        (
            "from kdbench.method import Bacth\n",
            "odd.py:2: unknown name of kdbench.method 'Bacth'; did you mean 'Batch'?",
        ),
    ],
)
def test_an_import_of_what_is_not_there_is_seen_without_importing(read, head, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        read(method(LOSSES, f"from kdbench.method import Method\n{head}"))


@pytest.mark.parametrize(
    "text",
    [
        method(LOSSES, "import kdbench.method as km\n", "km.Method"),
        method(LOSSES, "from kdbench.method import Method as Base\n", "Base"),
        method(LOSSES, "from kdbench.method import *\n"),
        method("    RATES = (0.1, 0.2)\n    names = {'a': 1}\n" + LOSSES),
        method("    bank: Tensor\n    heads: nn.ModuleList\n    schedule: 'Sequence[float]'\n" + LOSSES),
        method("    def losses(self, batch, extra=None): return {}\n"),
        method("    def losses(self, batch): return self.teach(batch) if self.teachers else {}\n"),
        method("    pass\n", f"from kdbench.method import Method\nclass Mixin:\n{LOSSES}", "Mixin, Method"),
        method("    def phases(self): return ()\n"),
        method("    pass\n", "from elsewhere import Losses\n".replace("elsewhere", "json") + "\n", "Losses, Method"),
        method(f"    needs_teacher: bool = True\n{LOSSES}"),
        method(
            LOSSES, "from kdbench.method import Method\ntry:\n    import not_installed_here\nexcept ImportError: pass\n"
        ),
    ],
)
def test_what_the_contract_allows_is_left_alone(read, text):
    assert read(text).name == "Odd"


def test_types_of_the_typing_module_and_in_quotes_are_fields(read):
    fields = "    a: Optional[float]\n    b: 'int'\n    c: typing.List[str]\n    d: tuple\n"
    assert list(read(method(fields + LOSSES)).parameters) == ["a", "b", "c", "d"]


def test_a_class_that_extends_itself_is_refused(read):
    with pytest.raises(UserError, match=r"defines none|extends itself"):
        read(method(LOSSES, "from kdbench.methods.odd import Odd\n", "Odd"))


def test_the_hooks_and_names_are_those_of_the_base_class():
    hooks = {name: tuple(_parameters(getattr(Method, name))) for name in contract.HOOKS}
    assert hooks == dict(contract.HOOKS)
    own = {name for name in vars(Method) if not name.startswith("_")} - set(contract.LITERALS)
    assert own <= contract.OWN_NAMES
    assert contract.OWN_NAMES - own - {"student", "info", "peers"} <= set(dir(nn.Module())) | {"training"}
    assert {type(getattr(Method, name)) for name in contract.LITERALS} == {bool, int, tuple, type(None)}


def _parameters(function):
    return function.__code__.co_varnames[1 : function.__code__.co_argcount]


def test_no_torch_is_needed_to_read_a_method():
    assert torch.__name__ not in vars(contract)
