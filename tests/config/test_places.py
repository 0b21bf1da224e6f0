import os
from pathlib import Path

import pytest

from kdbench.cli.main import main
from kdbench.config import bindings, places
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


RULE = "a name is made of letters, digits and underscores, and begins with a letter"


@pytest.mark.parametrize(
    ("group", "file", "renamed"),
    [
        ("method", "methods/my-method.py", "my_method.py"),
        ("method", "methods/my method (2).py", "my_method_2_.py"),
        ("method", "gin/method/my-method.gin", "my_method.gin"),
        ("method", "gin/control/ce.old.gin", "ce_old.gin"),
        ("recipe", "gin/recipe/my recipe.gin", "my_recipe.gin"),
        ("dataset", "gin/dataset/cifar-10.gin", "cifar_10.gin"),
        ("cluster", "slurm/a100-80.gin", "a100_80.gin"),
        ("backbones", "backbones/wide-net.py", "wide_net.py"),
        ("readers", "readers/tiny imagenet.py", "tiny_imagenet.py"),
        ("measures", "measures/μ.py", None),
        ("launchers", "launchers/2nd.py", None),
    ],
)
def test_a_file_that_its_name_leaves_out_is_reported(tmp_path, group, file, renamed):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text("")
    places.add_plugins([str(tmp_path)])
    other = f" to {renamed}" if renamed else ""
    assert places.misnamed(group) == {path: f"rename {tmp_path.name}/{file}{other} ({RULE})"}


def test_an_ending_in_capitals_is_reported_and_helpers_and_other_files_are_not(tmp_path):
    places.add_plugins([root(tmp_path, methods__mine="", methods___helper="")])
    for name in (".mine.py", "notes-1.txt", "mine.py.orig", "__init__.py"):
        (tmp_path / "methods" / name).write_text("")
    (tmp_path / "methods" / "a-folder.py").mkdir()
    assert places.misnamed("method") == {}
    (tmp_path / "methods" / "Other.PY").write_text("")
    places.add_plugins([])
    (sentence,) = places.misnamed("method").values()
    assert sentence == f"rename {tmp_path.name}/methods/Other.PY to Other.py (its ending must be .py)"


@pytest.mark.parametrize("word", ["my-method", "my_method", "MyMethod"])
def test_a_word_for_such_a_file_names_it_and_any_other_unknown_word_mentions_it(tmp_path, word):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "my-method.py").write_text("")
    places.add_plugins([str(tmp_path)])
    with pytest.raises(UserError, match=rf"the method '{word}' cannot be used: rename .* to my_method\.py"):
        bindings.member(word)
    with pytest.raises(UserError, match=r"unknown method 'kdd'; did you mean 'kd'\?.*left out: .*my-method\.py"):
        bindings.member("kdd")


def test_names_that_differ_by_case_alone_are_named(tmp_path):
    places.add_plugins([root(tmp_path, methods__MyKD="class MyKD: pass", gin__method__mykd="")])
    with pytest.raises(UserError, match=r"no methods/mykd\.py.*methods/MyKD\.py differs from that by case alone"):
        bindings.method_source("mykd")
    (tmp_path / "methods" / "MyKD.py").write_text(
        "from kdbench.method import Method\n\n\nclass MyKD(Method):\n    def losses(self, batch):\n        return {}\n"
    )
    with pytest.raises(UserError, match=r"no gin file.*gin/method/mykd\.gin differs from that by case alone"):
        bindings.member("MyKD")


def test_list_and_all_mention_them(tmp_path, capsys):
    for folder in ("methods", "gin/recipe", "backbones"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "methods" / "my-method.py").write_text("")
    (tmp_path / "gin" / "recipe" / "my recipe.gin").write_text("")
    (tmp_path / "backbones" / "my-net.py").write_text("")
    places.add_plugins([str(tmp_path)])
    for kind, name in (("methods", "my-method.py"), ("recipes", "my recipe.gin"), ("students", "my-net.py")):
        assert main(["list", kind]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(name)]
        assert f"cannot be used: rename {tmp_path.name}/" in line
    assert main(["run", "methods=all", "--dry-run", "--runs", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().err
    assert f"left out: rename {tmp_path.name}/methods/my-method.py to my_method.py (" in shown
    assert f"left out: rename {tmp_path.name}/backbones/my-net.py to my_net.py (" in shown


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


def test_what_is_no_regular_file_is_no_member(tmp_path):
    folder = root(tmp_path, gin__recipe__mine="")
    (tmp_path / "gin/recipe/folder.gin").mkdir()
    os.mkfifo(tmp_path / "gin/recipe/pipe.gin")
    before = set(places.members("recipe"))
    places.add_plugins([folder])
    assert set(places.members("recipe")) == before | {"mine"}
