"""Gin files of a user, and a package with plug-ins that is installed next to kdbench."""

import pytest

from kdbench.config import places


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs the folder theirs/ of `tmp_path` as a package with the entry point of plug-ins."""

    def package():
        (tmp_path / "theirs" / "__init__.py").write_text("")
        info = tmp_path / "theirs-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[kdbench.methods]\nmine = theirs\n")
        monkeypatch.syspath_prepend(tmp_path)
        places.add_plugins([])

    return package


@pytest.fixture
def root_with(tmp_path, monkeypatch):
    """Adds gin files to a root of the user's: their text, by GROUP__NAME."""

    def add(**files):
        for name, text in files.items():
            group, _, stem = name.partition("__")
            path = tmp_path / "gin" / group / f"{stem}.gin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setenv("KDBENCH_PLUGINS", str(tmp_path))
        places.add_plugins([])

    return add
