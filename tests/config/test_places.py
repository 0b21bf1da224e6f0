import os

import pytest

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


def test_what_is_no_regular_file_is_no_member(tmp_path):
    folder = root(tmp_path, gin__recipe__mine="")
    (tmp_path / "gin/recipe/folder.gin").mkdir()
    os.mkfifo(tmp_path / "gin/recipe/pipe.gin")
    before = set(places.members("recipe"))
    places.add_plugins([folder])
    assert set(places.members("recipe")) == before | {"mine"}
