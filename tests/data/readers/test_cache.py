"""The cache of decoded images: used when it is right, decoded anew when anything about it is not."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdbench.data.readers import cache, cifar, registry


def _cache(class_folders: Path) -> Path:
    return class_folders / ".kdbench" / "cifar10.npz"


def _names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_second_read_decodes_nothing_and_is_equal(class_folders: Path, decoded: list[Path]):
    first = registry.read("cifar10", class_folders)
    assert len(decoded) == 50
    second = registry.read("cifar10", class_folders)
    assert len(decoded) == 50
    assert second.digest() == first.digest()
    assert second.classes == first.classes
    assert _names(_cache(class_folders).parent) == ["cifar10.npz", "lock"]


def test_changed_folder_renews_the_cache(class_folders: Path, decoded: list[Path]):
    registry.read("cifar10", class_folders)
    added = np.full((32, 32, 3), 7, np.uint8)
    Image.fromarray(added).save(class_folders / "cifar10" / "train" / "ship" / "new.png")
    arrays = registry.read("cifar10", class_folders)
    assert len(arrays.train_images) == 31
    assert (arrays.train_images[arrays.train_labels == 8] == added).all(axis=(1, 2, 3)).any()
    registry.read("cifar10", class_folders)
    assert len(decoded) == 50 + 51


def test_change_while_decoding_makes_the_cache_old(class_folders: Path, monkeypatch):
    decode = cifar._from_folders

    def slow(root: Path, classes: int):
        arrays = decode(root, classes)
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(root / "train" / "ship" / "late.png")
        return arrays

    monkeypatch.setattr(cifar, "_from_folders", slow)
    registry.read("cifar10", class_folders)
    monkeypatch.undo()
    assert len(registry.read("cifar10", class_folders).train_images) == 31


def _halved(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


def _emptied(file: Path) -> None:
    file.write_bytes(b"")


def _pickled(file: Path) -> None:
    with file.open("wb") as out:
        np.save(out, np.array([{"an": "object"}]), allow_pickle=True)


def _array(file: Path) -> None:
    with file.open("wb") as out:
        np.save(out, np.zeros(3))


def _other_keys(file: Path) -> None:
    np.savez(file, images=np.zeros(3))


def _changed(file: Path, **changes: np.ndarray) -> None:
    with np.load(file) as content:
        np.savez(file, **{**content, **changes})


def _other_fingerprint(file: Path) -> None:
    _changed(file, fingerprint=np.array("0" * 64))


def _packed(file: Path) -> None:
    with np.load(file) as content:
        np.savez_compressed(file, **{**content, "train_images": np.zeros((30, 32, 32, 3), np.uint8)})


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _other_shapes(file: Path) -> None:
    _changed(file, test_images=np.zeros((20, 16, 16, 3), np.uint8))


def _other_size_throughout(file: Path) -> None:
    _changed(file, test_images=np.zeros((20, 8, 8, 3), np.uint8), train_images=np.zeros((30, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    "spoil",
    [
        _halved,
        _flipped,
        _emptied,
        _pickled,
        _array,
        _other_keys,
        _other_fingerprint,
        _packed,
        _pipe,
        _other_shapes,
        _other_size_throughout,
    ],
)
def test_torn_or_foreign_cache_is_decoded_anew(spoil, class_folders: Path, decoded: list[Path]):
    right = registry.read("cifar10", class_folders).digest()
    spoil(_cache(class_folders))
    assert registry.read("cifar10", class_folders).digest() == right
    assert len(decoded) == 100
    assert registry.read("cifar10", class_folders).digest() == right
    assert len(decoded) == 100


def test_no_place_for_the_cache_is_not_fatal(class_folders: Path, decoded: list[Path], monkeypatch):
    # A file where the folder should be: permissions would not stop tests that run as root.
    (class_folders / ".kdbench").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(class_folders / ".kdbench"))
    first = registry.read("cifar10", class_folders)
    assert first.digest() == registry.read("cifar10", class_folders).digest()
    assert len(decoded) == 100
    (note,) = first.notes
    assert note.startswith("every process decodes the images of cifar10 again, because neither ")


@pytest.fixture
def elsewhere(class_folders: Path, tmp_path_factory, monkeypatch) -> Path:
    """The user's own cache, of data whose own folder cannot be written."""
    (class_folders / ".kdbench").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home") / "cache"))
    return Path(os.environ["XDG_CACHE_HOME"]) / "kdbench"


def test_images_of_a_folder_that_cannot_be_written_are_kept_in_the_users_elsewhere(
    class_folders: Path, decoded: list[Path], elsewhere: Path
):
    first = registry.read("cifar10", class_folders)
    assert first.notes == ()
    assert registry.read("cifar10", class_folders).digest() == first.digest()
    assert len(decoded) == 50
    (folder,) = elsewhere.iterdir()
    assert _names(folder) == ["cifar10.npz", "lock"]
    assert [path.stat().st_mode & 0o777 for path in (elsewhere, folder)] == [0o700, 0o700]


def _open_to_others(elsewhere: Path) -> None:
    elsewhere.chmod(0o777)


def _of_a_link(elsewhere: Path) -> None:
    elsewhere.rename(elsewhere.with_name("away"))
    elsewhere.symlink_to("away")


def _of_other_images(elsewhere: Path) -> None:
    (file,) = elsewhere.glob("*/cifar10.npz")
    with np.load(file) as content:
        _changed(file, train_images=255 - content["train_images"])


@pytest.mark.parametrize("spoil", [_open_to_others, _of_a_link, _of_other_images])
def test_a_cache_that_others_may_have_written_is_not_used(
    spoil, class_folders: Path, decoded: list[Path], elsewhere: Path
):
    right = registry.read("cifar10", class_folders).digest()
    spoil(elsewhere)
    assert registry.read("cifar10", class_folders).digest() == right
    assert len(decoded) == 100


def test_failed_write_leaves_the_old_cache_and_no_rest(class_folders: Path, monkeypatch):
    first = registry.read("cifar10", class_folders).digest()
    os.utime(class_folders / "cifar10" / "train" / "cat", ns=(1, 1))
    before = _cache(class_folders).read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert registry.read("cifar10", class_folders).digest() == first
    assert _cache(class_folders).read_bytes() == before
    assert _names(_cache(class_folders).parent) == ["cifar10.npz", "lock"]


def test_readers_at_once_decode_once(class_folders: Path, decoded: list[Path]):
    digests: list[str] = []
    threads = [
        threading.Thread(target=lambda: digests.append(registry.read("cifar10", class_folders).digest()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 4
    assert len(set(digests)) == 1
    assert len(decoded) == 50


class _Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_cache_cannot_run_code(tmp_path: Path):
    np.savez(
        tmp_path / "a.npz", fingerprint=np.array("x"), classes=np.array([_Trap(tmp_path / "sprung")], dtype=object)
    )
    assert cache.load(tmp_path / "a.npz", "x") is None
    assert not (tmp_path / "sprung").exists()


def test_store_and_load(tmp_path: Path):
    path = tmp_path / ".kdbench" / "a.npz"
    assert cache.load(path, "x") is None
    assert cache.store(path, "x", {"numbers": np.arange(3), "names": np.array(["a", "bc"])})
    content = cache.load(path, "x")
    assert {name: array.tolist() for name, array in content.items()} == {"numbers": [0, 1, 2], "names": ["a", "bc"]}
    assert cache.load(path, "y") is None
    assert not cache.store(tmp_path / "no" / "parent" / "a.npz", "x", {})


def test_fingerprint_sees_time_size_name_and_kind_but_not_the_place(tmp_path: Path):
    def made(place: str, name: str = "a", content: str = "1", time: int = 5) -> str:
        file = tmp_path / place / "part" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        os.utime(file, ns=(time, time))
        return cache.fingerprint([file], "cifar10")

    first = made("one")
    assert made("other") == first
    assert cache.fingerprint([tmp_path / "one" / "part" / "a"], "cifar100") != first
    assert len({first, made("one", name="b"), made("one", content="11"), made("one", time=6)}) == 4


def test_lock_is_freed_by_an_error_and_passes_it_on(tmp_path: Path):
    for _ in range(2):
        with pytest.raises(OSError, match="mine"), cache.lock(tmp_path / ".kdbench"):
            raise OSError("mine")
