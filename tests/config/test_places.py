from pathlib import Path

import pytest

from kdbench.cli.main import main
from kdbench.config import places
from kdbench.errors import UserError

pytestmark = pytest.mark.usefixtures("own_plugins")


def root(path, **files):
    for name, text in files.items():
        target = path / name.replace("__", "/")
        target = target.with_suffix(".gin" if "gin" in name else ".py")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return str(path)


def test_a_folder_of_the_users_adds_to_what_comes_with_kdbench(tmp_path):
    before = set(places.members("recipe"))
    places.add_plugins([root(tmp_path, gin__recipe__mine="")])
    assert set(places.members("recipe")) == before | {"mine"}


def test_two_files_of_one_name_are_refused(tmp_path):
    places.add_plugins([root(tmp_path, gin__recipe__smoke="")])
    with pytest.raises(UserError, match="the recipe 'smoke' is defined twice"):
        places.members("recipe")


def test_a_folder_without_methods_and_gin_is_refused(tmp_path):
    places.add_plugins([str(tmp_path)])
    with pytest.raises(
        UserError, match="has no methods/, gin/, slurm/, backbones/, readers/, measures/ or launchers/ in it"
    ):
        places.roots()


def test_files_that_are_no_methods_by_name_are_passed_by(tmp_path):
    before = set(places.sources())
    places.add_plugins([root(tmp_path, methods___private="", methods__mine="")])
    (tmp_path / "methods" / "not-a-name.py").write_text("")
    assert set(places.sources()) == before | {"mine"}


def test_a_package_offers_its_methods_through_the_entry_point(tmp_path, install):
    root(tmp_path / "theirs", methods__theirs="", gin__method__theirs="")
    install()
    assert places.sources()["theirs"] == tmp_path / "theirs" / "methods" / "theirs.py"
    assert "theirs" in places.members("method")


@pytest.mark.parametrize("word", ["x" * 256, "a/" * 2500, "a\0b"])
def test_a_word_that_no_path_can_be_is_one_sentence(word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="cannot be a path: it is too long, or has a zero byte in it"):
        places.user_path(word)
    if "\0" not in word:
        for words in (["run", f"teacher={word}/", "methods=kd"], ["reproduce", f"./{word}"], ["diff", word, word]):
            assert main([*words, "--runs", "runs"]) == 2
            (sentence,) = capsys.readouterr().err.splitlines()
            assert "cannot be a path" in sentence
            assert len(sentence) < 500


def test_the_home_of_nobody_is_a_folder_that_does_not_exist(tmp_path):
    assert places.user_path("~nobody-of-this-name/x.pt") == Path("~nobody-of-this-name/x.pt")
