import os
import stat
import struct
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdbench.errors import UserError
from kdbench.report.foreign import source as source_
from kdbench.report.foreign.source import RESULTS, SUMS, read


def test_a_file_and_an_archive_give_the_same_rows(pack, tmp_path):
    (tmp_path / "results.csv").write_bytes(b"a,b\n1,2\n")
    file, archive = read(tmp_path / "results.csv"), read(pack(b"a,b\n1,2\n"))
    assert file.content == archive.content == b"a,b\n1,2\n"
    assert (file.name, archive.name) == (f"{tmp_path.name}/results.csv", "theirs.zip")
    assert archive.origin == f"theirs.zip {file.origin.split()[-1]}"


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (("../evil.py", ""), "a path that kdbench does not pack"),
        (("/etc/passwd", ""), "a path that kdbench does not pack"),
        (("leaderboard/../../evil", ""), "a path that kdbench does not pack"),
        (("leaderboard\\..\\evil", ""), "a path that kdbench does not pack"),
        ((link("leaderboard/README.md"), "/etc/passwd"), "holds the link 'leaderboard/README.md'"),
    ],
)
def test_paths_and_links_that_lead_out_are_refused_and_nothing_is_unpacked(pack, tmp_path, member, words):
    path = pack(b"a", member)
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(UserError, match=words):
        read(path)
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice_is_refused(pack):
    with pytest.raises(UserError, match="twice"):
        read(pack(b"a", (RESULTS, b"b")))


def test_a_bomb_is_refused_before_it_is_unpacked(pack, monkeypatch):
    monkeypatch.setattr(source_, "MOST_BYTES", 1 << 20)
    with pytest.raises(UserError, match="larger than 1,048,576 bytes"):
        read(pack(b"0" * (3 << 20)))


def test_a_bomb_that_claims_to_be_small_is_cut_off(pack, monkeypatch):
    monkeypatch.setattr(source_, "MOST_BYTES", 1 << 20)
    path = pack(b"0" * (3 << 20))
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", 3 << 20), struct.pack("<L", 100)))
    with pytest.raises(UserError, match="cannot be read as an archive"):
        read(path)


def test_a_large_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(source_, "MOST_BYTES", 1000)
    (tmp_path / "results.csv").write_bytes(b"a" * 1001)
    with pytest.raises(OSError, match="larger than 1,000 bytes"):
        read(tmp_path / "results.csv")


def test_other_archives_and_folders_are_refused(pack, tmp_path):
    with pytest.raises(UserError, match="it does not match SHA256SUMS"):
        read(pack(sums="0" * 64))
    with pytest.raises(UserError, match="compressed in a way"):
        read(pack(compression=zipfile.ZIP_LZMA))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr(SUMS, "")
    with pytest.raises(UserError, match=r"it lacks leaderboard/results.csv"):
        read(tmp_path / "other.zip")
    with pytest.raises(UserError, match="not the folder"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(OSError, match="not a regular file"):
        read(tmp_path / "pipe.csv")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_archive_is_one_sentence(pack, data):
    path = pack(b"a,b\n" * 10)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    sentence = ""
    try:
        read(path)
    except UserError as error:
        sentence = str(error)
    assert len(sentence.splitlines()) <= 1
