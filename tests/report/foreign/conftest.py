"""Rows of somebody else."""

import hashlib
import zipfile

import pytest

from kdbench.report import records
from kdbench.report.foreign.source import RESULTS, SUMS, Source


@pytest.fixture
def row(result):
    """A result whose id, protocol and checksums are in the form that kdbench gives them."""

    def make(method="ce", seed=0, accuracy=50.0, **changes):
        run = f"{method}-digits-cnn-s{seed}-{hashlib.sha256(f'{method}{seed}'.encode()).hexdigest()[:10]}"
        base = {"run": run, "protocol": "1f9c20ab", "weights__sha256": f"{seed}" * 64}
        return result(method, seed, accuracy, **{**base, **changes})

    return make


@pytest.fixture
def source():
    """The rows of these results, as a file would hold them."""

    def make(*results, edit=lambda text: text):
        content = edit(records.to_csv(records.frame(results)).decode())
        return Source("theirs.csv", "theirs.csv 12345678", content.encode(errors="surrogateescape"))

    return make


@pytest.fixture
def pack(tmp_path):
    """Writes an archive with these rows, and with members of the caller's; its sums are those of the rows."""

    def write(content=b"a", *more, sums=None, compression=zipfile.ZIP_DEFLATED):
        path = tmp_path / "theirs.zip"
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr(RESULTS, content)
            archive.writestr(SUMS, f"{sums or hashlib.sha256(content).hexdigest()}  {RESULTS}\n")
            for member in more:
                archive.writestr(*member)
        return path

    return write
