"""A package with plug-ins that is installed next to kdbench."""

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
