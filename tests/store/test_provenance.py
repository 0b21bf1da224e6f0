"""The commit and the state of kdbench's own clone, whatever the environment says about another."""

import os
import subprocess

import pytest

from kdbench.config import places
from kdbench.store import provenance


@pytest.fixture
def repositories(tmp_path, monkeypatch):
    """Makes a repository with one commit and returns its folder."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "kdbench").mkdir()
        (folder / "kdbench" / "a.py").write_text(name)
        identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
        for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", name]):
            subprocess.run(["git", "-C", str(folder), *words], check=True)
        return folder

    return make


def commit_of(folder):
    return subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def asked(monkeypatch):
    """Asks for the commit of a folder as kdbench's own root."""

    def ask(root):
        monkeypatch.setattr(places, "own_root", lambda: root)
        provenance.of_this_code.cache_clear()
        return provenance.of_this_code()

    yield ask
    provenance.of_this_code.cache_clear()


def test_another_repository_in_the_environment_does_not_count(repositories, asked, monkeypatch):
    own, other = repositories("own"), repositories("other")
    right = commit_of(own)
    assert asked(own) == (right, True)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert asked(own) == (right, True)
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git" / "objects"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(own.parent))
    assert asked(own) == (right, True)


def test_changes_are_those_of_the_own_clone(repositories, asked, monkeypatch):
    own, other = repositories("own"), repositories("other")
    (own / "kdbench" / "b.py").write_text("new")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "status.showUntrackedFiles")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "no")
    assert asked(own)[1] is False


def test_a_folder_that_is_not_a_clone_has_none(repositories, asked, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(repositories("other") / ".git"))
    assert asked(tmp_path) == (None, None)
