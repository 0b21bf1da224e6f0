"""What cannot be shown is not shown, and nobody who prints hears of it."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from kdbench.output import lenient

CLOSED = """
import sys, warnings
from kdbench.output import lenient
with lenient():
    for _ in range(3):
        print("x" * 10_000, flush=True)
        print("é", file=sys.stderr)
        warnings.warn("a warning")
sys.exit(7)
"""


def gone():
    """A pipe whose reader has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def full():
    return open("/dev/full", "w")


def latin():
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [gone, full, latin, closed, lambda: None])
def test_no_error_of_the_output_reaches_what_prints(make, monkeypatch):
    stream = make()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    with lenient():
        for _ in range(3):
            print("é … \ud800" + "x" * 10_000, flush=True)
            Console(stderr=True).print("a table")
            sys.stderr.writelines(["a\n", "b\n"])
    assert sys.stdout is sys.stderr is stream


def test_a_character_that_the_encoding_lacks_is_replaced(monkeypatch):
    stream = latin()
    monkeypatch.setattr(sys, "stdout", stream)
    with lenient():
        print("Δ ce ± 1")
    stream.flush()
    assert stream.buffer.getvalue() == b"? ce ? 1\n"


def test_what_can_be_shown_is_shown(capsys):
    with lenient():
        print("out")
        print("error", file=sys.stderr)
        assert sys.stdout.isatty() is False
    assert tuple(capsys.readouterr()) == ("out\n", "error\n")


@pytest.mark.parametrize("redirection", [">/dev/full 2>&1", ">&- 2>&-", "2>&1 | true"])
def test_the_exit_status_is_that_of_the_work(redirection, tmp_path):
    (tmp_path / "program.py").write_text(CLOSED)
    command = f'set -o pipefail; "{sys.executable}" program.py {redirection}'
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.returncode == 7
