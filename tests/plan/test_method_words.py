"""The words of methods=: all, families, and what they leave out."""

from __future__ import annotations

import pytest

from kdbench.config import about, places
from kdbench.errors import UserError
from kdbench.plan import method_words, request

SIX = ("ce", "byot", "corsd", "crd", "kd", "rkd")


def test_all_are_the_method_files_with_the_baseline_first():
    every = method_words.expanded(["all"])
    assert every == ("ce", *sorted({*places.sources()} - {"ce"}))
    assert method_words.expanded(["ce_3x", "all"]) == (*every, "ce_3x"), "a variant is included when named"


def test_families_together_are_all_of_them():
    families = method_words.families()
    words = [f"family/{family}" for family in families]
    assert sorted(method_words.expanded(words)) == sorted(places.sources())
    assert method_words.expanded(["kd", "family/label", "family/logit"])[:2] == ("kd", "ce")
    assert {"crd", "rkd"} <= set(method_words.expanded(["family/relation"]))
    assert "born_again" not in families["logit"]


def test_methods_and_families_are_left_out():
    every = method_words.expanded(["all"])
    assert method_words.expanded(["all", "-kd"]) == tuple(name for name in every if name != "kd")
    assert method_words.expanded(["-kd", "all"]) == method_words.expanded(["all", "-kd"])
    rest = method_words.expanded(["all", "-family/relation", "-family/self"])
    assert {about.of_method(name).family for name in rest} == {*method_words.families()} - {"relation", "self"}
    assert method_words.expanded(["kd", "ce", "-ce"]) == ("kd",)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["family/relatoin"], "unknown family of methods 'relatoin'; did you mean 'relation'?"),
        (["all", "-family/selv"], "unknown family of methods 'selv'; did you mean 'self'?"),
        (["famly/self"], "unknown family of methods 'famly/self'; did you mean 'family/self'?"),
        (["family/"], "unknown family of methods ''"),
        (["all", "-corsdd"], "unknown method 'corsdd'; did you mean 'corsd'?"),
        (["kd", "-ce"], "methods=…,-ce leaves out nothing: the other words do not select it"),
        (["all", "-kd", "-kd_random_teacher"], "-kd_random_teacher leaves out nothing"),
        (["-kd"], "-kd leaves out nothing"),
        (["kd", "-kd"], "methods=kd,-kd leaves no method"),
    ],
)
def test_words_that_cannot_be(words, sentence):
    with pytest.raises(UserError) as error:
        method_words.expanded(words)
    assert sentence in str(error.value)


def test_words_that_select_several_say_how_many():
    several = len(places.sources())
    assert request.parse(["methods=all,ce_3x"]).sizes == (
        f"methods=all selects {several} methods; see them with: kdbench list methods",
    )
    (sentence,) = request.parse(["methods=family/label,kd"]).sizes
    assert sentence.startswith("methods=family/label selects ")
    assert request.parse(["methods=kd,ce"]).sizes == ()


@pytest.mark.parametrize("words", [[], ["seeds=0"], ["dataset=cifar100"], ["student=resnet20"], ["sweep=default"]])
def test_a_request_that_names_no_method_is_of_the_six(words):
    parsed = request.parse(words)
    assert parsed.methods == SIX
    assert parsed.sizes == ()
