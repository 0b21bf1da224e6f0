import dataclasses
from typing import Any, Literal

import pytest

from kdbench import methods
from kdbench.config import places, signature
from kdbench.config.fields import field_type, misfit
from kdbench.errors import UserError


@pytest.mark.parametrize("name", sorted(places.sources()))
def test_what_is_read_from_the_source_is_what_the_class_takes(name):
    read = signature.of_method(name)
    methods.load(name)
    real = getattr(__import__(f"kdbench.methods.{name}", fromlist=[name]), read.name)
    assert {n: p.type for n, p in read.parameters.items()} == real.fields()
    assert list(read.parameters) == list(real.fields())
    assert all(p.default is dataclasses.MISSING for p in read.parameters.values()), "values belong in gin files"
    assert real.needs_teacher == read.attributes.get("needs_teacher", False)
    assert real.images_per_anchor == read.attributes.get("images_per_anchor", 1)


def plugin(tmp_path, monkeypatch, **files):
    for name, text in files.items():
        (tmp_path / "methods").mkdir(exist_ok=True)
        (tmp_path / "methods" / f"{name}.py").write_text(text)
    monkeypatch.setenv("KDBENCH_PLUGINS", str(tmp_path))
    places.add_plugins([])
    signature.of_method.cache_clear()


pytestmark = pytest.mark.usefixtures("own_plugins")


BASE = """
from kdbench.method import Method
class Near(Method):
    needs_teacher = True
    weight: float
    power: int | None
    bank: Tensor
    reach_of: nn.ModuleList
    def losses(self, batch):
        return {}
"""


def test_a_method_that_builds_on_another_takes_its_parameters(tmp_path, monkeypatch):
    far = """
from kdbench.methods.near import Near
class Far(Near):
    images_per_anchor = 2
    kind: Literal["a", "b"]
    reach: tuple[float, ...]
"""
    plugin(tmp_path, monkeypatch, near=BASE, far=far)
    method = signature.of_method("far")
    assert method.name == "Far"
    assert {name: parameter.type for name, parameter in method.parameters.items()} == {
        "weight": float, "power": int | None, "kind": Literal["a", "b"], "reach": tuple[float, ...],
    }  # fmt: skip
    assert method.attributes == {"needs_teacher": True, "images_per_anchor": 2}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1", "exactly one public subclass of Method, but defines none"),
        (BASE + "class Other(Method):\n    pass\n", "defines Near, Other"),
        ("class (:", "does not parse"),
        (BASE + "    views = ('recipe', 'stong')\n", "unknown view 'stong'; did you mean 'strong'"),
        (
            BASE + "    def __init__(self, student, teacher, info, *, weight: float):\n        pass\n",
            r"parameters in __init__; declare them as fields \('weight: float' in the class body\)",
        ),
    ],
)
def test_a_file_without_one_method_class_is_refused(tmp_path, monkeypatch, text, sentence):
    plugin(tmp_path, monkeypatch, odd=text)
    with pytest.raises(UserError, match=sentence):
        signature.of_method("odd")


@pytest.mark.parametrize(
    ("value", "type_"),
    [(1, float), (1.5, float), (2, int), (True, bool), ("a", str), (None, float | None), ("b", Literal["a", "b"]),
     ((1, 2.5), tuple[float, ...]), ([1], tuple[int, ...]), (object(), Any)],
)  # fmt: skip
def test_values_that_fit(value, type_):
    assert misfit(value, type_) is None


@pytest.mark.parametrize(
    ("value", "type_", "words"),
    [(True, float, "a number"), ("1", float, "a number"), (1.0, int, "an integer"), (True, int, "an integer"),
     (1, bool, "True or False"), (3, str, "a string"), ("x", float | None, "a number such as 0.5 or None"),
     ((1, "b"), tuple[float, ...], "a list, each item a number"), (1.0, tuple[float, ...], "a list")],
)  # fmt: skip
def test_values_that_do_not_fit(value, type_, words):
    assert words in misfit(value, type_)


def test_a_misspelt_choice_gets_the_nearest():
    assert misfit("bfloat", Literal["float32", "bfloat16"]).endswith("did you mean 'bfloat16'?")


@pytest.mark.parametrize(
    "annotation",
    [
        "__import__('os').mkdir('made')",
        "[__import__('os').mkdir('made')]",
        "tuple[(lambda: __import__('os').mkdir('made'))()]",
        "f\"{__import__('os').mkdir('made')}\"",
        "\"__import__('os').mkdir('made')\"",
    ],
)
def test_an_annotation_is_not_executed(annotation, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert field_type(annotation) is None
    assert not (tmp_path / "made").exists()


def test_types_are_still_read():
    written = ("float", "int | None", "tuple[float, ...]", "Literal[-1, 'a']", "typing.Optional[str]", "'float'")
    assert all(field_type(annotation) is not None for annotation in written)
    assert field_type("Tensor") is None
