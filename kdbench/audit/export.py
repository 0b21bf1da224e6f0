"""`kdbench export`: the leaderboard with all that it comes from, as one archive for a paper's supplement. No torch here."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import textwrap
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path

import pandas as pd

import kdbench
from kdbench.errors import UserError
from kdbench.report import records
from kdbench.report.formats import readme
from kdbench.report.leaderboard import CSV, LATEX, PAGE, README, TIDY, check
from kdbench.report.plots import figures
from kdbench.report.tables.published import CSV as PUBLISHED
from kdbench.store import provenance
from kdbench.store.folder import CONFIG

MANIFEST, SUMS, ABOUT = "MANIFEST.json", "SHA256SUMS", "README.txt"
_COMMAND = "command.txt"
_STAMP = (1980, 1, 1, 0, 0, 0)  # of every file in the archive: when it was packed is no part of what it holds
_ABOUT = """\
A leaderboard of methods of knowledge distillation with all that it comes from, packed by `kdbench export`.

{parts}

In this folder

    {check}
        says whether each file is what was packed.
    kdbench leaderboard --check
        says whether the tables are what the rows give.
    kdbench reproduce {run} --runs runs
        trains a run once more, and says whether the same weights come out, bit for bit, or what differs.
        The runs are the folders in runs/; images that do not come with kdbench are found with --data DIR.

The last two need kdbench; another than the one that packed this may write its tables otherwise. That one was
{version}.
"""
_ENVIRONMENT = ("kdbench", "python", "torch", "torchvision", "gin", "device", "gpus", "platform", "commit", "clean")


def export(runs: Path, out: Path, to: Path | None) -> Path:
    """Pack the leaderboard in `out`.

    Args:
        runs: the folder of all runs; what is no longer there is told by its command.
        to: the archive; None: `out` with the ending .zip.

    Returns:
        The archive. From the same leaderboard, folders and installed packages come the same bytes.

    Raises:
        UserError: the leaderboard is not what its rows give, its page or a picture is of other rows, or `to` is no name for
            an archive.
    """
    to = to or out.with_name(f"{out.name}.zip")
    if to.suffix != ".zip" or to.is_dir():
        raise UserError(f"--to takes the name of a file that ends in .zip, not '{to}'")
    wrong = check(out)
    if wrong:
        raise UserError(f"{wrong[0]}; mend it with: {_anew(runs, out)}")
    content = (out / CSV).read_bytes()
    rows = records.canonical(records.from_csv(content, CSV)[0])
    if rows.empty:
        raise UserError(f"there is no run in {out / CSV}; make some with: kdbench run")
    stale = _of_other_rows(out, content)
    if stale:
        rest = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
        verb = "are" if rest else "is"
        raise UserError(
            f"{stale[0]}{rest} {verb} not of the rows in {CSV}; delete what you do not want, or mend it with: "
            f"{_anew(runs, out)}"
        )
    files = {**dict(_board(out, to)), **dict(_runs(rows, runs)), **_environment(rows)}
    commit, clean = provenance.of_this_code()
    files[MANIFEST] = _json(
        {
            "kdbench": kdbench.__version__,
            "commit": commit,
            "clean": clean,
            "newest": max(_column(rows, "provenance.finished_at")),
            "runs": len(rows),
        }
    )
    version = kdbench.__version__ + (f", commit {commit}" if commit else "") + " with changes" * (clean is False)
    files[ABOUT] = _about(files, next(iter(rows["run"][rows["status"] == "finished"]), "RUN"), version)
    files = dict(sorted(files.items()))
    records.write(to, _archive({**files, SUMS: _sums(files)}))
    return to


def _anew(runs: Path, out: Path) -> str:
    """The command that writes the leaderboard anew, with all that it consists of now."""
    page = out / README
    columns = readme.made_with(page.read_text(errors="replace")) if page.is_file() else None
    words = [f"columns={','.join(columns)}"] if columns else []
    words += ["--runs", str(runs), "--out", str(out)]
    words += ["--html"] * (out / PAGE).is_file() + ["--plots"] * bool(figures.paths(out))
    return shlex.join(["kdbench", "leaderboard", *words])


def _of_other_rows(out: Path, content: bytes) -> list[Path]:
    """The page and the pictures that do not hold the checksum of these rows; the rows alone do not say what is in them."""
    sha256 = hashlib.sha256(content).hexdigest().encode()
    made = [path for path in (out / PAGE, *figures.paths(out)) if path.is_file()]
    return [path for path in made if sha256 not in path.read_bytes()]


def _board(out: Path, to: Path) -> Iterator[tuple[str, bytes]]:
    """All files that the leaderboard consists of; a damaged file of rows that was kept is none."""
    for path in out.rglob("*"):
        parts = path.relative_to(out).parts
        hidden = any(part.startswith(".") for part in parts) or path.match("results.damaged-*.csv")
        if path.is_file() and path.resolve() != to.resolve() and not hidden:
            yield "/".join(("leaderboard", *parts)), path.read_bytes()


def _runs(rows: pd.DataFrame, runs: Path) -> Iterator[tuple[str, bytes]]:
    """The configuration of each run; the command alone where its folder is not there."""
    for run, command in zip(rows["run"], _column(rows, "provenance.command"), strict=True):
        try:
            yield f"runs/{run}/{CONFIG}", (runs / run / CONFIG).read_bytes()
        except OSError:
            yield f"runs/{run}/{_COMMAND}", f"{command}\n".encode()


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


def _sums(files: Mapping[str, bytes]) -> bytes:
    """The checksums of all files as sha256sum writes them."""

    def line(name: str, content: bytes) -> str:
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
        return f"{chr(92) * (escaped != name)}{hashlib.sha256(content).hexdigest()}  {escaped}\n"

    return "".join(line(name, content) for name, content in files.items()).encode()


def _about(files: Iterable[str], run: str, version: str) -> bytes:
    """What the archive holds and how to check it, for whoever has nothing else.

    Args:
        run: an example.
        version: of the kdbench that packs.
    """
    names = set(files)
    parts = {
        f"leaderboard/{CSV}": "a row for each run, with all that is known of it",
        f"leaderboard/{README}": f"the tables, which follow from the rows; {TIDY} has them at full precision, {LATEX} for LaTeX",
        f"leaderboard/{PUBLISHED}": "the published values that the tables are set beside",
        f"leaderboard/{PAGE}": "the tables as a page for a browser, with the curves of the runs",
        f"leaderboard/{figures.PLOTS}/": "the tables as pictures",
        f"runs/*/{CONFIG}": "a run's command and all values that it was configured with",
        f"runs/*/{_COMMAND}": "a run's command alone, where its folder was no longer there",
        "environment/runs.json": "with what the runs were made, each value with the number of its runs",
        "environment/packages.txt": "what was installed where this was packed",
        MANIFEST: "the version of kdbench that packed this, the number of the runs, and when the newest ended",
        SUMS: "the checksums of all other files",
    }

    def is_there(part: str) -> bool:
        before, _, after = part.partition("*")
        return part == SUMS or any(name.startswith(before) and name.endswith(after) for name in names)

    wide = max(map(len, parts)) + 2
    listed = [
        textwrap.fill(f"{part:<{wide}}{text}.", 110, subsequent_indent=" " * wide, break_long_words=False)
        for part, text in parts.items()
        if is_there(part)
    ]
    check = f"sha256sum -c {SUMS}"
    return _ABOUT.format(parts="\n".join(listed), check=check, run=shlex.quote(run), version=version).encode()


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _STAMP)
            entry.create_system = 3  # Unix, wherever it is packed
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()
