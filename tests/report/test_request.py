from __future__ import annotations

import pytest

from kdbench.errors import UserError
from kdbench.report.request import Request, parse
from kdbench.report.tables.axes import EVERY, Axes


def test_the_words_of_a_request_make_it_again():
    for words in ([], ["columns=accuracy,p"], ["baseline=kd"], ["columns=ece", "baseline=kd"]):
        assert parse(words).words() == words
    by_student = Axes("method", "student")
    assert parse(["rows=method", "columns=student"]) == Request(baseline="", axes=by_student)
    assert parse(["rows=method", "columns=student", "baseline=kd"]) == Request(baseline="kd", axes=by_student)
    assert len({by.name for by in EVERY}) == len(EVERY)
    assert [by.name for by in EVERY[:2]] == ["method-by-student", "student-by-method"]


def test_dataset_and_student_can_share_an_axis_in_either_order():
    both = Request(baseline="", axes=Axes("method", "dataset,student"))
    assert (
        parse(["rows=method", "columns=student,dataset"]) == parse(["rows=method", "columns=dataset,student"]) == both
    )
    assert parse(["rows=dataset,student", "columns=method"]).axes.name == "dataset-student-by-method"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["rows=method"], "with rows=, columns= must name the other axis, such as rows=method columns=student"),
        (["rows=method", "columns=student,method"], "not rows=method columns=student,method"),
        (["rows=method,student", "columns=dataset"], "not rows=method,student columns=dataset"),
        (
            ["rows=method", "columns=method"],
            "one axis must be method and the other one student, dataset or dataset,student",
        ),
        (["rows=student", "columns=dataset"], "not rows=student columns=dataset"),
        (["rows=methods", "columns=student"], "unknown axis 'methods'; did you mean 'method'?"),
        (["rows=method", "columns=accuracy"], "unknown axis 'accuracy'"),
        (["baseline=kd,ce"], "'baseline' takes one value, not 2"),
        (["row=method", "columns=student"], "did you mean 'rows'?"),
    ],
)
def test_what_cannot_be_is_one_sentence(words, sentence):
    with pytest.raises(UserError) as caught:
        parse(words)
    assert sentence in str(caught.value)
