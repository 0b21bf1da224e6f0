import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.cli.main import main
from kdbench.config import ginfile, places, signature, syntax
from kdbench.errors import UserError

RECIPE = (places.own_root() / "gin" / "recipe" / "standard.gin").read_text()
DAMAGES = [
    "",
    "'",
    '"',
    "'''",
    "(",
    ")",
    "[",
    "{",
    "}",
    "=",
    ":",
    ",",
    "@",
    "%",
    "#",
    "\n",
    "\r",
    "\t",
    " ",
    "\\",
    "\0",
    "$",
    "?",
    "0x",
    "1e",
]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Train.epochs = ", "Unable to parse value. (line 2)"),
        ("Train.epochs = (3.0", "EOF in multi-line statement; is a bracket or a quote not closed? (line 2)"),
        (
            "Train.schedule = '''cosine",
            "EOF in multi-line statement; is a bracket or a quote not closed? (line 2)",
        ),
        ("Train.schedule = 'cosine", "(line 2)"),
        ("Train.epochs = 3.0 4.0", "Expected newline. (line 2)"),
        ("Train.epochs 3.0", "Couldn't parse statement, expected ':' or '='. (line 2)"),
        ("Train.epochs = ten", "Failed to parse token 'ten' (line 2)"),
        (f"Train.epochs = {'9' * 5000}", "… (line 2)"),
        (f"Train.epochs = {'[' * 500}", "(line 2)"),
        ("Train:\n\tepochs = 3\n  batch_size = 4", "(line 4)"),
    ],
)
def test_an_error_is_a_sentence_with_its_line(text, sentence):
    with pytest.raises(UserError) as caught:
        syntax.statements_in(f"# a comment\n{text}\n", "recipe/r.gin")
    assert str(caught.value).startswith("recipe/r.gin does not parse: ")
    assert str(caught.value).endswith(sentence)
    assert len(str(caught.value)) < 400


@given(data=st.data())
def test_a_damaged_recipe_is_read_or_is_one_sentence(data, tmp_path_factory):
    text = RECIPE
    for _ in range(data.draw(st.integers(1, 3))):
        first = data.draw(st.integers(0, len(text)))
        text = text[:first] + data.draw(st.sampled_from(DAMAGES)) + text[first + data.draw(st.integers(0, 8)) :]
    path = tmp_path_factory.getbasetemp() / "recipe" / "r.gin"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    sentence = ""
    try:
        ginfile.read(path, signature.of_group("recipe"), "the recipe 'r'")
    except UserError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert not sentence or "r.gin" in sentence


@pytest.mark.parametrize(
    "words",
    [
        ["run", "methods=ce", "recipe=broken", "--dry-run"],
        ["list"],
        ["show", "recipe=broken"],
        ["diff", "ce", "kd", "recipe=broken"],
    ],
)
def test_no_command_falls_over_a_broken_recipe(words, root_with, own_plugins, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root_with(recipe__broken="include 'recipe/quick.gin'\nTrain.epochs = (3.0\n")
    status = main(words)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    if words != ["list"]:
        assert status == 2
        assert error == (
            "kdbench: recipe/broken.gin does not parse: EOF in multi-line statement; is a bracket or a quote not closed? "
            "(line 2)\n"
        )


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *(("3", 3), ("-0.5", -0.5), ("'3'", "3"), ("(1, 'a')", (1, "a")), ("None", None), ("'a#b'", "a#b")),
        *(("cuda:1", "cuda:1"), ("a b", "a b"), ("3 4", "3 4"), ("3 # four", "3 # four"), ("(1", "(1"), ("", "")),
        *(("3\nSGD.lr = 0.5", "3\nSGD.lr = 0.5"), ("(1,\n2)", "(1,\n2)"), ("= 3", "= 3"), ("3:", "3:")),
    ],
)
def test_a_word_is_a_value_as_a_whole_or_a_string(written, value):
    assert syntax.value_in(written) == value


@given(written=st.text(max_size=12))
def test_any_word_is_a_value_or_a_string(written):
    value = syntax.value_in(written)
    assert value == written or not isinstance(value, str) or syntax.value_in(repr(value)) == value
