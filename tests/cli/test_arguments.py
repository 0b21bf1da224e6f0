"""The words of the command line before any command runs."""

import pytest

from kdbench.cli import arguments
from kdbench.errors import UserError
from kdbench.version import __version__


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["run", "--dri-run"],
            "unknown option '--dri-run' of kdbench run; did you mean '--dry-run'? See: kdbench run --help",
        ),
        (["run", "--zzz"], "unknown option '--zzz' of kdbench run; see: kdbench run --help"),
        (["run", "--zzz=3"], "unknown option '--zzz' of kdbench run; see: kdbench run --help"),
        (
            ["run", "--out", "x"],
            "unknown option '--out' of kdbench run; --out is an option of kdbench leaderboard, kdbench reproduce, "
            "kdbench export and kdbench power",
        ),
        (["run", "--follow"], "unknown option '--follow' of kdbench run; --follow is an option of kdbench logs"),
        (["export", "--html"], "unknown option '--html' of kdbench export; --html is an option of kdbench leaderboard"),
        (
            ["--watch", "status"],
            "options follow the command, as in kdbench status --watch; --watch is an option of kdbench status",
        ),
        (["--runs", "x", "run"], "options follow the command, as in kdbench run --runs"),
        (["--vresion"], "unknown option '--vresion'; did you mean '--version'? See: kdbench --help"),
        (["--zzz"], "unknown option '--zzz'; see: kdbench --help"),
        (["rnu"], "unknown command 'rnu'; did you mean 'run'? See: kdbench --help"),
        (["zzz"], "unknown command 'zzz'; see: kdbench --help"),
        (["help", "rnu"], "unknown command 'rnu'; did you mean 'run'?"),
        (["list", "methods", "ce"], "kdbench list does not take 'ce'; see: kdbench list --help"),
        (["export", "x"], "kdbench export does not take 'x'; see: kdbench export --help"),
        (["--install-completion"], "shell completion is set up by the shell: pip install"),
        (["completion", "bash"], "shell completion is set up by the shell: pip install"),
    ],
)
def test_wrong_words_are_one_sentence(words, sentence):
    with pytest.raises(UserError) as caught:
        arguments.parse(words)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("words", "beginning"),
    [
        ([], "usage: kdbench [-h]"),
        (["help"], "usage: kdbench [-h]"),
        (["--help"], "usage: kdbench [-h]"),
        (["help", "run"], "usage: kdbench run [-h]"),
        (["version"], f"kdbench {__version__}\n"),
        (["--version"], f"kdbench {__version__}\n"),
    ],
)
def test_help_and_version_are_commands_and_options(words, beginning, capsys):
    with pytest.raises(SystemExit) as caught:
        arguments.parse(words)
    assert caught.value.code in (0, None)
    assert capsys.readouterr().out.startswith(beginning)


def test_selections_may_follow_options():
    parsed = arguments.parse(["run", "methods=ce", "--dry-run", "seeds=0", "--runs", "r"])
    assert (parsed.words, parsed.dry_run, str(parsed.runs)) == (["methods=ce", "seeds=0"], True, "r")
