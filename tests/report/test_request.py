from __future__ import annotations

import pytest

from kdbench.errors import UserError
from kdbench.report.request import Request, parse
from kdbench.report.tables.axes import EVERY, Axes


def test_the_words_of_a_request_make_it_again():
    for words in ([], ["columns=accuracy,p"], ["baseline=kd"], ["columns=ece", "baseline=kd"]):
        assert parse(words).words() == words
    assert parse(["rows=method", "columns=student"]) == Request(axes=Axes("method", "student"))
    assert [f"{by.rows}-by-{by.columns}" for by in EVERY] == [by.name for by in EVERY]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["rows=method"], "with rows=, columns= must name one axis, such as rows=method columns=student, not 0"),
        (["rows=method", "columns=student,dataset"], "must name one axis"),
        (["rows=method", "columns=method"], "one axis must be method and the other one student or dataset"),
        (["rows=student", "columns=dataset"], "not rows=student columns=dataset"),
        (["rows=methods", "columns=student"], "unknown axis 'methods'; did you mean 'method'?"),
        (["rows=method", "columns=accuracy"], "unknown axis 'accuracy'"),
        (["rows=method", "columns=student", "baseline=kd"], "baseline= cannot be combined with rows="),
        (["baseline=kd,ce"], "'baseline' takes one value, not 2"),
        (["row=method", "columns=student"], "did you mean 'rows'?"),
    ],
)
def test_what_cannot_be_is_one_sentence(words, sentence):
    with pytest.raises(UserError) as caught:
        parse(words)
    assert sentence in str(caught.value)
