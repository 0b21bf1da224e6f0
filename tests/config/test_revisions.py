"""Checksums of method files that changed in form: whose runs are one method, and whose are not."""

from __future__ import annotations

import pytest

from kdbench.config import places, revisions
from kdbench.errors import UserError
from kdbench.report.leaderboard import check, regenerate
from kdbench.report.tables.tables import summarise

HEAD = "file,sha256,same_as,reason\n"
FIRST, SECOND, THIRD, OTHER = ("1" * 64, "2" * 64, "3" * 64, "f" * 64)


@pytest.fixture
def declare(tmp_path, monkeypatch):
    """Makes a plug-in folder that declares (version, earlier version, reason) of its method file at."""

    def write(*rows):
        folder = tmp_path / "plugin" / "methods"
        folder.mkdir(parents=True)
        lines = [f"methods/at.py,{sha256},{same_as},{reason}" for sha256, same_as, reason in rows]
        (folder / revisions.CSV).write_text(HEAD + "\n".join(lines) + "\n")
        monkeypatch.setenv("KDBENCH_PLUGINS", str(folder.parent))
        places.roots.cache_clear()

    yield write
    places.roots.cache_clear()


@pytest.fixture
def listed(declare):
    """A plug-in folder whose method file at was changed in form twice."""
    declare((SECOND, FIRST, "imports"), (THIRD, SECOND, "declared fields"))


def runs(result, *checksums):
    return [
        result("at", seed, 50.0 + seed**2, provenance__method_sha256=sha256) for seed, sha256 in enumerate(checksums)
    ]


def version_notes(results):
    (table,) = summarise(results)
    return [note for note in table.notes if "version" in note]


def test_seeds_of_different_versions_have_a_note(result):
    assert version_notes(runs(result, FIRST, OTHER, FIRST)) == [
        "at: made by different versions of its method file: provenance.method_sha256 11111111 for seeds 0, 2; "
        "ffffffff for seed 1"
    ]
    assert version_notes(runs(result, FIRST, FIRST)) == []
    assert version_notes(runs(result, FIRST, None)) == [], "nothing is known of a run without a checksum"


def test_versions_that_are_listed_as_the_same_have_none(result, listed):
    assert version_notes(runs(result, FIRST, SECOND, THIRD)) == []
    (note,) = version_notes(runs(result, THIRD, OTHER, FIRST))
    assert "11111111 for seeds 0, 2; ffffffff for seed 1" in note, "named by the earliest of them"


def test_the_board_says_once_for_each_reason_that_files_changed_in_form(result, store, tmp_path, listed):
    out = tmp_path / "out"
    more = [result("kd", dataset="cifar100", run="x", provenance__method_sha256=SECOND)]
    regenerate(store(*runs(result, FIRST, SECOND), *more), out)
    text = (out / "README.md").read_text()
    assert "## Versions of method files" in text
    for reason in ("imports", "declared fields"):
        sentence = f"earlier versions of methods/at.py, which differ from later ones in form, not in what they compute: {reason}."
        assert text.count(sentence) == 1
    assert "differ from later ones in form, not in what they compute: imports." in (out / "tables.tex").read_text()
    assert check(out) == []


def test_of_runs_of_the_newest_versions_the_board_says_nothing(result, store, tmp_path, listed):
    regenerate(store(*runs(result, THIRD, THIRD)), tmp_path / "out")
    assert "Versions of method files" not in (tmp_path / "out" / "README.md").read_text()


def test_a_file_that_came_back_to_an_earlier_form_is_one_version(declare, result):
    declare((SECOND, FIRST, "imports"), (FIRST, SECOND, "imports again"))
    assert version_notes(runs(result, FIRST, SECOND)) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("file,sha256\n", "must have the columns file, sha256, same_as, reason"),
        (
            f"{HEAD}methods/at.py,{FIRST},abc,imports\n",
            "line 2: same_as must be the 64 hexadecimal digits of a SHA-256",
        ),
        (f"{HEAD}methods/at.py,{FIRST},{SECOND},\n", "line 2: file and reason must not be empty"),
    ],
)
def test_a_damaged_file_is_a_sentence(tmp_path, content, sentence):
    (tmp_path / revisions.CSV).write_text(content)
    with pytest.raises(UserError, match=sentence):
        revisions.read(tmp_path / revisions.CSV)


def test_the_list_that_comes_with_kdbench_can_be_read():
    revisions.read(places.own_root() / "methods" / revisions.CSV)
