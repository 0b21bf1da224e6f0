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
        (
            ["Train.epochs=3\nSGD.lr=0.5"],
            "'Train.epochs=3\\nSGD.lr=0.5' has a line break or another character that cannot be printed; pass each",
        ),
        (["methods=a\rworkers=2"], "'methods=a\\rworkers=2' has a line break"),
        (["kd\0"], "'kd\\x00' has a line break or another character"),
        (["teacher=\udcff.pt"], "'teacher=\\udcff.pt' has a line break or another character"),
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


@pytest.mark.parametrize(
    ("texts", "seeds"),
    [
        (["0-4"], (0, 1, 2, 3, 4)),
        (["0..4"], (0, 1, 2, 3, 4)),
        (["0-2", "7"], (0, 1, 2, 7)),
        (["7", "1..2", "2-3"], (7, 1, 2, 3)),
        (["5-5"], (5,)),
    ],
)
def test_ranges_of_seeds_include_both_ends_and_each_seed_is_there_once(texts, seeds):
    assert words.seed_numbers(texts) == seeds


@pytest.mark.parametrize("text", ["0-", "-4", "0.4", "0...4", "0--4", "0-4-6", "a-b", "0 - 4"])
def test_a_range_has_two_ends(text):
    with pytest.raises(
        UserError, match="seeds must be non-negative integers or ranges, such as seeds=0,1,2 or seeds=0-4"
    ):
        words.seed_numbers([text])


def test_a_range_rises():
    with pytest.raises(UserError, match="begins with its smaller end: seeds=1-4, not '4-1'"):
        words.seed_numbers(["4-1"])


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("1,2, 4", ["1", "2", "4"]),
        ("(1, 2),(3,)", ["(1, 2)", "(3,)"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("@Cosine(),@Step()", ["@Cosine()", "@Step()"]),
        ("1,,2,", ["1", "2"]),
    ],
)
def test_commas_inside_brackets_and_quotes_do_not_separate(text, items):
    assert words.listed_values(text) == items


def test_numbers_are_shown_in_their_shortest_form():
    assert [words.shortest(value) for value in (4.0, 0.5, 4, True, "4.0", None, 1e22)] == [
        4,
        0.5,
        4,
        True,
        "4.0",
        None,
        1e22,
    ]
    assert isinstance(words.shortest(4.0), int)
    assert str(words.shortest((1.0, 0.25))) == "(1, 0.25)"
    assert [words.count(number, "run") for number in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("kd (temperature=2) ± Δ–é", "kd (temperature=2) ± Δ–é"),
        ("a\x1b[31mb\x07\x00", r"a\x1b[31mb\x07\x00"),
        ("a\x9bb", r"a\x9bb"),
        ("a\u202eb\ud800", r"a\u202eb\ud800"),
        ("a\nb\tc\xa0d\u2028e", "a b c d e"),
    ],
)
def test_printable_text_is_one_line_that_nothing_acts_on(text, shown):
    assert words.printable(text) == shown
    assert words.printable(shown) == shown


def test_printable_lines_keep_their_ends_and_tabs():
    assert words.printable_lines("a\tb\r\nc\rd\x1be\n") == "a\tb\nc\nd\\x1be\n"


def test_nine_digits():
    assert words.nine_digits(1 / 3) == 0.333333333
    assert words.nine_digits(12345678901.0) == 12345678901.0


@pytest.mark.parametrize("text", ["-1", "1.5", "", "x", "٣", "9" * 19, "9" * 5000])
def test_what_is_not_a_number_of_64_bits_is_one_sentence(text):
    with pytest.raises(UserError, match="workers must be a positive integer") as caught:
        words.whole_number("workers", text, 1)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["9" * 5000, f"0-{'9' * 5000}", "9223372036854775808", "0-10000", "3-9999999999"])
def test_seeds_that_nobody_means_are_one_sentence(text):
    with pytest.raises(UserError, match="seeds"):
        words.seed_numbers([text])
    assert len(words.seed_numbers(["0-9999"])) == words.MOST_SEEDS
