"""The archives of CIFAR in small: packed and unpacked, in the places where people keep them, damaged, and of others."""

import gzip
import hashlib
import io
import os
import pickle
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kdbench.data.readers import cifar, cifar_archive, registry
from kdbench.errors import RunError, UserError

CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PACKED, UNPACKED = "cifar-10-python.tar.gz", "cifar-10-batches-py"


@pytest.fixture
def archive(class_folders: Path, tmp_path_factory, monkeypatch) -> Path:
    """An archive of the images of `class_folders` in another order, with torchvision's expected checksums replaced by its own."""
    from torchvision import datasets

    folder = tmp_path_factory.mktemp("archive")
    inner = folder / "cifar-10-batches-py"
    inner.mkdir()
    md5s = {}

    def put(name: str, content: dict) -> None:
        (inner / name).write_bytes(pickle.dumps(content))
        md5s[name] = hashlib.md5((inner / name).read_bytes()).hexdigest()

    parts = {}
    for part in ("train", "test"):
        files = sorted(
            (class_folders / "cifar10" / part).glob("*/*.png"), key=lambda file: (file.name, file.parent.name)
        )
        rows = np.stack([np.asarray(Image.open(file)).transpose(2, 0, 1).reshape(-1) for file in files])
        parts[part] = rows, [CLASSES.index(file.parent.name) for file in files]
    rows, labels = parts["train"]
    for batch in range(5):
        put(f"data_batch_{batch + 1}", {"data": rows[batch::5], "labels": labels[batch::5]})
    put("test_batch", {"data": parts["test"][0], "labels": parts["test"][1]})
    put("batches.meta", {"label_names": list(CLASSES)})
    packed = folder / "cifar-10-python.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(inner, inner.name)

    for some in ("train_list", "test_list"):
        names = [name for name, _ in getattr(datasets.CIFAR10, some)]
        monkeypatch.setattr(datasets.CIFAR10, some, [[name, md5s[name]] for name in names])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": md5s["batches.meta"]})
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(packed.read_bytes()).hexdigest())
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:1/cifar.tar.gz")
    return folder


@pytest.mark.parametrize("kept", ["packed", "extracted"])
def test_archive_gives_the_same_arrays_as_folders(kept, class_folders: Path, archive: Path, monkeypatch):
    if kept == "packed":
        shutil.rmtree(archive / "cifar-10-batches-py")
    else:
        (archive / "cifar-10-python.tar.gz").unlink()
    first = registry.read("cifar10", archive)
    assert first.digest() == registry.read("cifar10", class_folders).digest()
    assert first.classes == CLASSES

    monkeypatch.setattr(cifar, "_from_archive", None)  # from here on only the cache can answer
    assert registry.read("cifar10", archive).digest() == first.digest()


def test_downloaded_data_is_cached_at_once(archive: Path, tmp_path: Path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(datasets.CIFAR10, "url", (archive / PACKED).as_uri())
    there = tmp_path / "empty"
    there.mkdir()
    assert not registry.is_present("cifar10", there)
    first = registry.read("cifar10", there).digest()
    assert registry.is_present("cifar10", there)
    assert sorted(path.name for path in there.iterdir()) == [".kdbench", PACKED]
    monkeypatch.setattr(cifar, "_from_archive", None)
    assert registry.read("cifar10", there).digest() == first


def test_a_download_of_something_else_leaves_nothing(archive: Path, tmp_path: Path, monkeypatch):
    from torchvision import datasets

    (tmp_path / "page").write_text("<html>")
    monkeypatch.setattr(datasets.CIFAR10, "url", (tmp_path / "page").as_uri())
    there = tmp_path / "empty"
    there.mkdir()
    with pytest.raises(UserError, match=r"the download failed .6 bytes came, with md5"):
        registry.read("cifar10", there)
    assert [path.name for path in there.iterdir()] == [".kdbench"]


def test_half_an_archive_is_not_no_archive(archive: Path):
    shutil.rmtree(archive / UNPACKED)
    packed = archive / PACKED
    half = packed.read_bytes()[: packed.stat().st_size // 2]
    packed.write_bytes(half)
    with pytest.raises(RunError, match=rf"{PACKED} is incomplete: {len(half)} bytes with md5") as error:
        registry.read("cifar10", archive)
    assert "no images" not in str(error.value)
    assert packed.read_bytes() == half


def test_damaged_unpacked_files_are_named_and_the_archive_is_read_instead(archive: Path, class_folders: Path):
    damaged = archive / UNPACKED / "data_batch_3"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert registry.read("cifar10", archive).digest() == registry.read("cifar10", class_folders).digest()
    (archive / PACKED).unlink()
    with pytest.raises(RunError, match=rf"data_batch_3 is damaged: {damaged.stat().st_size} bytes with md5"):
        registry.read("cifar10", archive)
    damaged.unlink()
    with pytest.raises(RunError, match=r"data_batch_3 is missing"):
        registry.read("cifar10", archive)


def _in_a_folder_of_its_name(archive: Path) -> Path:
    (archive / "CIFAR-10").mkdir()
    for name in (PACKED, UNPACKED):
        (archive / name).rename(archive / "CIFAR-10" / name)
    return archive


def _the_unpacked_folder(archive: Path) -> Path:
    (archive / PACKED).unlink()
    return archive / UNPACKED


def _next_to_the_folder_of_its_name(archive: Path) -> Path:
    (archive / "cifar10").mkdir()
    return archive / "cifar10"


def _beside_another_dataset(archive: Path) -> Path:
    for part in ("train", "test"):
        for name in ("n01440764", "n01443537", "n02102040"):
            (archive / part / name).mkdir(parents=True)
    return archive


def _beside_another_dataset_of_ten_classes(archive: Path) -> Path:
    for part in ("train", "val"):
        for number in range(10):
            (archive / part / f"n{number}").mkdir(parents=True)
            Image.fromarray(np.zeros((64, 80, 3), np.uint8)).save(archive / part / f"n{number}" / "1.JPEG")
    return archive


@pytest.mark.parametrize(
    "lay",
    [
        _in_a_folder_of_its_name,
        _the_unpacked_folder,
        _next_to_the_folder_of_its_name,
        _beside_another_dataset,
        _beside_another_dataset_of_ten_classes,
    ],
)
def test_it_is_looked_for_where_people_keep_it(lay, archive: Path, class_folders: Path):
    assert registry.read("cifar10", lay(archive)).digest() == registry.read("cifar10", class_folders).digest()


def test_archives_of_others_write_nothing_and_run_nothing(tmp_path: Path, monkeypatch):
    from torchvision import datasets

    there, outside = tmp_path / "data", tmp_path / "outside"
    there.mkdir(), outside.mkdir()
    with tarfile.open(there / PACKED, "w:gz") as tar:
        for name, kind, link in (
            ("../outside/a", tarfile.REGTYPE, ""),
            (str(outside / "b"), tarfile.REGTYPE, ""),
            (f"{UNPACKED}/data_batch_1", tarfile.SYMTYPE, str(outside)),
            (f"{UNPACKED}/data_batch_1/c", tarfile.REGTYPE, ""),
            (f"{UNPACKED}/test_batch", tarfile.LNKTYPE, "../outside/d"),
            (f"{UNPACKED}/batches.meta", tarfile.CHRTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            tar.addfile(member)
    for believed in (False, True):
        if believed:  # even where the checksum is right
            monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5((there / PACKED).read_bytes()).hexdigest())
        with pytest.raises(RunError, match=r"damaged|another file|incomplete"):
            registry.read("cifar10", there)
        assert list(outside.iterdir()) == []
        assert sorted(path.name for path in there.iterdir()) == [".kdbench", PACKED]


class _Trap:
    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_that_is_not_of_arrays_runs_nothing(tmp_path: Path):
    with pytest.raises(pickle.UnpicklingError, match=re.escape("mkdir")):
        cifar_archive._unpickled(pickle.dumps({"data": _Trap(tmp_path / "sprung")}))
    assert not (tmp_path / "sprung").exists()


def _tar_of_odd_members() -> bytes:
    with tarfile.open(fileobj=(packed := io.BytesIO()), mode="w") as tar:
        for name, kind in (
            ("batches.meta", tarfile.REGTYPE),
            ("data_batch_1", tarfile.REGTYPE),
            ("../../outside", tarfile.REGTYPE),
            ("data_batch_2", tarfile.SYMTYPE),
            ("data_batch_3", tarfile.GNUTYPE_SPARSE),
            ("test_batch", tarfile.LNKTYPE),
        ):
            member = tarfile.TarInfo(f"{UNPACKED}/{name}")
            member.type, member.linkname, member.size = kind, "/etc/passwd", 40 * (kind == tarfile.REGTYPE)
            tar.addfile(member, io.BytesIO(pickle.dumps({"data": _Trap(Path("sprung"))}).ljust(40, b".")[:40]))
    return packed.getvalue()


PIECES = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8), st.booleans()), max_size=4)


def _damaged(content: bytes, pieces: list[tuple[float, bytes, bool]]) -> bytes:
    for share, piece, cut in pieces:
        at = int(share * len(content))
        content = content[:at] if cut and share > 0.3 else content[:at] + piece + content[at + len(piece) :]
    return content


@settings(max_examples=int(os.environ.get("KDBENCH_FUZZ", 100)))
@given(PIECES, PIECES)
def test_whatever_an_archive_holds_it_is_one_sentence_and_writes_nothing(tmp_path_factory, inside, outside):
    from torchvision import datasets

    folder = tmp_path_factory.getbasetemp() / "archives"
    folder.mkdir(exist_ok=True)
    packed = folder / PACKED
    packed.write_bytes(_damaged(gzip.compress(_damaged(_tar_of_odd_members(), inside), 1), outside))
    before = sorted(folder.parent.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(packed.read_bytes()).hexdigest())
        with pytest.raises(RunError) as error:
            cifar_archive.read("cifar10", (packed,))
    assert str(packed) in str(error.value)
    assert "\n" not in str(error.value)
    assert list(folder.iterdir()) == [packed]
    assert sorted(folder.parent.iterdir()) == before
    assert not Path("sprung").exists()
