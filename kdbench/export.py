"""`kdbench export`: the leaderboard with all that it comes from, as one archive for a paper's supplement. No torch here."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pandas as pd

import kdbench
from kdbench.errors import UserError
from kdbench.report import rows as rows_
from kdbench.report.leaderboard import CSV, check
from kdbench.store import CONFIG

MANIFEST = "MANIFEST.json"
_STAMP = (1980, 1, 1, 0, 0, 0)  # of every file in the archive: when it was packed is no part of what it holds
_ENVIRONMENT = ("kdbench", "python", "torch", "torchvision", "gin", "device", "gpus", "platform", "commit", "clean")


def export(runs: Path, out: Path, to: Path | None) -> Path:
    """Pack the leaderboard in `out`.

    Args:
        runs: the folder of all runs; what is no longer there is told by its command.
        to: the archive; None: `out` with the ending .zip.

    Returns:
        The archive. From the same leaderboard, folders and installed packages come the same bytes.

    Raises:
        UserError: the leaderboard is not what its rows give, or `to` is no name for an archive.
    """
    to = to or out.with_name(f"{out.name}.zip")
    if to.suffix != ".zip" or to.is_dir():
        raise UserError(f"--to takes the name of a file that ends in .zip, not '{to}'")
    wrong = check(out)
    if wrong:
        raise UserError(f"{wrong[0]}; mend it with: kdbench leaderboard --runs {runs} --out {out}")
    rows = rows_.canonical(rows_.from_csv((out / CSV).read_bytes(), CSV)[0])
    if rows.empty:
        raise UserError(f"there is no run in {out / CSV}; make some with: kdbench run")
    files = dict(sorted({**dict(_board(out, to)), **dict(_runs(rows, runs)), **_environment(rows)}.items()))
    manifest = {
        "kdbench": kdbench.__version__,
        "newest": max(_column(rows, "provenance.finished_at")),
        "runs": len(rows),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    rows_.write(to, _archive({MANIFEST: _json(manifest), **files}))
    return to


def _board(out: Path, to: Path) -> Iterator[tuple[str, bytes]]:
    """All files that the leaderboard consists of."""
    for path in out.rglob("*"):
        parts = path.relative_to(out).parts
        if path.is_file() and path.resolve() != to.resolve() and not any(part.startswith(".") for part in parts):
            yield "/".join(("leaderboard", *parts)), path.read_bytes()


def _runs(rows: pd.DataFrame, runs: Path) -> Iterator[tuple[str, bytes]]:
    """The configuration of each run; the command alone where its folder is not there."""
    for run, command in zip(rows["run"], _column(rows, "provenance.command"), strict=True):
        try:
            yield f"runs/{run}/{CONFIG}", (runs / run / CONFIG).read_bytes()
        except OSError:
            yield f"runs/{run}/command.txt", f"{command}\n".encode()


def _environment(rows: pd.DataFrame) -> dict[str, bytes]:
    """What the runs were made with, each value with the number of its runs, and what is installed here."""
    counts = {name: _column(rows, f"provenance.{name}") for name in _ENVIRONMENT}
    made_with = {name: dict(sorted(pd.Series(cells).value_counts().items())) for name, cells in counts.items()}
    installed = sorted({f"{found.name}=={found.version}" for found in distributions()}, key=str.lower)
    return {
        "environment/runs.json": _json(
            {n: {str(k or "unknown"): int(c) for k, c in v.items()} for n, v in made_with.items()}
        ),
        "environment/packages.txt": "".join(f"{line}\n" for line in installed).encode(),
    }


def _column(rows: pd.DataFrame, name: str) -> list[str]:
    return list(rows[name]) if name in rows.columns else [""] * len(rows)


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _STAMP)
            entry.create_system = 3  # Unix, wherever it is packed
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()
