"""What `kdbench leaderboard` prints, and its exit status."""

import pytest

from kdbench.cli.main import main


@pytest.fixture
def made(result, store, tmp_path, monkeypatch):
    """Runs and their leaderboard, as the current folder."""
    store(*(result("ce", seed, 50.0 + seed) for seed in (0, 1)))
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard"]) == 0
    return tmp_path


def test_it_says_what_it_has_written(made, capsys):
    (made / "runs" / "open").mkdir()
    (made / "runs" / "open" / "config.gin").write_text("")
    capsys.readouterr()
    assert main(["leaderboard"]) == 0
    shown = capsys.readouterr()
    readme = made / "leaderboard" / "README.md"
    assert shown.out == f"{readme}: 1 table from 2 runs, unchanged; 1 run has no result yet\n"


def test_check_fails_and_names_the_file_that_is_out_of_date(made, capsys):
    capsys.readouterr()
    assert main(["leaderboard", "--check"]) == 0
    assert capsys.readouterr() == ("", "")
    readme = made / "leaderboard" / "README.md"
    readme.write_text(readme.read_text() + "by hand\n")
    assert main(["leaderboard", "--check"]) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith(f"kdbench: {readme} does not follow from")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--check", "--html"], "--check cannot be combined with --html or --plots"),
        (["--check", "--plots"], "--check cannot be combined with --html or --plots"),
        (["colums=ece"], "did you mean 'columns'?"),
        (["columns=ecee"], "did you mean 'ece'?"),
    ],
)
def test_wrong_input_is_one_sentence(made, capsys, words, sentence):
    capsys.readouterr()
    assert main(["leaderboard", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
