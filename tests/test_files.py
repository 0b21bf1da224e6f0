import multiprocessing
import os
import stat

import pytest

from kdbench.files import leads_out, links, lock, replacing, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_write_creates_folders_and_is_readable_by_all(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(path.parent) == ["file"]


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
