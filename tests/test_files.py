import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from kdbench.errors import reason
from kdbench.files import leads_out, links, lock, read_object, read_regular, replacing, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_write_creates_folders_and_is_readable_by_all(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_counts(tmp_path, umask, mode):
    path = tmp_path / "file"
    before = os.umask(umask)
    try:
        write_atomically(path, b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path):
    path = tmp_path / "file"
    path.mkdir()
    with pytest.raises(OSError, match="Is a directory") as caught:
        write_atomically(path, b"new")
    assert caught.value.filename == str(path)
    assert names(tmp_path) == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_an_error_in_the_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def half():
        with replacing(path) as file:
            file.write(b"new")
            raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        half()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def hold(path, locked, release):
    with lock(path):
        locked.set()
        release.wait(30)


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path):
    path = tmp_path / "lock"
    context = multiprocessing.get_context("fork")
    locked, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(path, locked, release))
    process.start()
    assert locked.wait(30)
    with pytest.raises(BlockingIOError), lock(path, wait=False):
        pass
    process.kill()
    process.join()
    with lock(path, wait=False):
        pass
    with lock(path):
        pass


def test_a_lock_that_cannot_be_written_raises(tmp_path):
    with pytest.raises(OSError, match="No such file"), lock(tmp_path / "none" / "lock"):
        pass


def test_a_link_leads_out_of_a_folder_or_stays_in_it(tmp_path):
    folder = tmp_path / "run"
    (folder / "plugin").mkdir(parents=True)
    for name, target in {
        "plain": None, "beside": "plain", "up": "../secret", "absolute": "/etc/passwd", "gone": "../gone", "loop": "loop",
        "plugin/in": "../plain", "plugin/out": "../../secret", "folder": "..", "double": "up",
    }.items():  # fmt: skip
        (folder / name).symlink_to(target) if target else (folder / name).write_text("")
    (tmp_path / "secret").write_text("mine")
    leading = {path.relative_to(folder).as_posix() for path in links(folder) if leads_out(path, folder)}
    assert leading == {"up", "absolute", "gone", "plugin/out", "folder", "double"}
    assert len(links(folder)) == 9
    assert leads_out(folder / "folder" / "secret", folder)
    assert not leads_out(folder / "plain", folder)
    (tmp_path / "alias").symlink_to("run")
    assert not leads_out(tmp_path / "alias" / "plain", tmp_path / "alias"), "the folder itself may be a link"


def test_a_regular_file_is_read_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, at_most=5) == b"12345"
    with pytest.raises(OSError, match="it is larger than 4 bytes"):
        read_regular(path, at_most=4)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "no such file or directory"),
        (lambda path: path.mkdir(), "it is not a regular file"),
        (os.mkfifo, "it is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a link"),
        (lambda path: path.symlink_to(__file__), "it is a link"),
        (lambda path: path.symlink_to(path), "it is a link"),
    ],
)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, make, why):
    path = tmp_path / "file"
    make(path)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        read_regular(path)
    assert reason(caught.value) == why


def test_a_device_is_refused():
    with pytest.raises(OSError, match="it is not a regular file"):
        read_regular(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is not JSON"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"a":' * 100_000, "it is nested too deeply"),
        (b"[1]", "it is not a JSON object"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": "\xff"}', "it is not JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "it is not JSON"),
    ],
)
def test_what_is_no_json_object_is_one_reason(tmp_path, content, why):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=why):
        read_object(path)


def test_what_may_no_longer_be_written_when_all_is_written_is_not(tmp_path):
    def refuse():
        assert len(list(tmp_path.iterdir())) == 2, "all is written, next to the previous file"
        raise RuntimeError("not yours any more")

    path = tmp_path / "state"
    write_atomically(path, b"old")
    with pytest.raises(RuntimeError, match="not yours any more"):
        write_atomically(path, b"new", before=refuse)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
