"""A wheel, installed into an empty place, has its methods and gin files and trains with them."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kdbench.config import bindings

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel built from this tree, unpacked as pip would."""
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place), str(ROOT)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (wheel,) = place.glob("kdbench-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def test_it_runs_in_an_empty_folder(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed), "KDBENCH_PLUGINS": ""}
    where = [
        sys.executable,
        "-c",
        "import kdbench; from kdbench.methods.rkd import distance_loss; print(kdbench.__file__)",
    ]
    printed = subprocess.run(where, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    assert printed.startswith(str(installed)), "the wheel, not the clone, is what is tested"
    words = ["run", "dataset=digits", "Train.epochs=1", "Train.warmup=0", "Measures.images=20"]
    done = subprocess.run(
        [sys.executable, "-m", "kdbench", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    methods = {*bindings.of_group("sweep", "default")["Sweep.methods"].value}
    assert {path.name.split("-")[0] for path in tmp_path.glob("runs/[!.]*")} == methods
    assert "digits · resnet8" in done.stdout


def test_it_holds_the_same_methods_and_gin_files_as_the_clone(installed):
    def files(root):
        paths = [path for folder in ("methods", "gin", "slurm") for path in (root / folder).rglob("*.[pg]*")]
        paths = [path for path in paths if path.suffix in (".py", ".gin")]
        paths.append(root / "leaderboard" / "published.csv")
        return {path.relative_to(root): path.read_bytes() for path in paths}

    assert files(installed / "kdbench" / "bundled") == files(ROOT)


def test_it_holds_the_parts_of_the_page(installed):
    folder = Path("kdbench", "report", "formats", "page")
    parts = {"page.html", "page.css", "page.js"}
    assert {name: (installed / folder / name).read_text() for name in parts} == {
        name: (ROOT / folder / name).read_text() for name in parts
    }


def test_type_checkers_use_its_types(installed):
    assert (installed / "kdbench" / "py.typed").is_file()
