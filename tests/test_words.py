import pytest

from kdbench import words
from kdbench.errors import UserError


def parse(*given):
    return words.parse(given, ("methods", "workers"), lambda key: UserError(f"no key {key}"), ("workers",))


def test_words_by_kind():
    parsed = parse("kd-digits", "methods=a,b,a", "SGD.lr=(1,2)", "all", "workers=2")
    assert parsed.bare == ("kd-digits", "all")
    assert parsed.values == {"methods": ("a", "b"), "workers": ("2",)}
    assert parsed.bindings == ("SGD.lr=(1,2)",)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["x=1"], "no key x"),
        (["methods=a", "methods=b"], "'methods' is given twice; pass several values as one comma-separated list"),
        (["methods=,"], "'methods=' has no value"),
        (["workers=1,2"], "'workers' takes one value, not 2"),
    ],
)
def test_a_wrong_word_is_one_sentence(given, sentence):
    with pytest.raises(UserError) as caught:
        parse(*given)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("word", ["b", "b=1", "b.c=1"])
def test_a_command_that_takes_selections_alone(word):
    def selections(*given):
        return words.selections(given, ["a"], lambda key: UserError(f"no key {key}"))

    assert selections("a=1,2") == {"a": ("1", "2")}
    with pytest.raises(UserError, match=f"no key {word.partition('=')[0]}"):
        selections("a=1", word)


@pytest.mark.parametrize("text", ["-1", "1.0", "²", "", "x"])
def test_seeds_and_numbers_are_ascii_digits(text):
    assert words.seed_numbers(["0", "17"]) == (0, 17)
    assert words.whole_number("workers", "12", 1) == 12
    with pytest.raises(UserError, match="seeds must be non-negative integers"):
        words.seed_numbers(["0", text])
    with pytest.raises(UserError, match="workers must be a positive integer, such as workers=2"):
        words.whole_number("workers", text, 1)
    with pytest.raises(UserError, match="positive"):
        words.whole_number("workers", "0", 1)
