"""The words of `kdbench tune`."""

import pytest

from kdbench.cli.commands import tune
from kdbench.errors import UserError


def test_methods_are_a_bare_word_or_a_selection():
    for words in (["ce,kd", "trials=20"], ["methods=ce,kd", "trials=20"], ["trials=20", "seeds=0,1", "ce,kd"]):
        request, number = tune.parse(words)
        assert (request.methods, number) == (("ce", "kd"), 20)
    assert request.seeds == (0, 1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ce"], "trials=N is required"),
        (["ce", "trials="], "'trials=' has no value"),
        (["ce", "trials=two"], "trials must be a positive integer, such as trials=20, not 'two'"),
        (["ce", "trials=2", "trials=3"], "'trials' is given twice"),
        (["ce", "trails=2"], "did you mean 'trials'? See: kdbench tune --help"),
        (["ce", "methods=kd", "trials=2"], "'methods' is given twice"),
    ],
)
def test_wrong_words(words, sentence):
    with pytest.raises(UserError) as caught:
        tune.parse(words)
    assert sentence in str(caught.value)
