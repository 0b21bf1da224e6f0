"""The leaderboard and its sources as one archive, for a paper's supplementary material. No torch here."""

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

from kdbench.errors import UserError
from kdbench.files import leads_out, read_regular
from kdbench.report import records
from kdbench.report.formats import readme
from kdbench.report.leaderboard import CSV, LATEX, PAGE, README, TIDY, check
from kdbench.report.plots import figures
from kdbench.report.tables.published import CSV as PUBLISHED
from kdbench.store import provenance
from kdbench.store.folder import CONFIG, PLUGIN, RunFolder
from kdbench.version import __version__
from kdbench.words import printable

MANIFEST, SUMS, ABOUT = "MANIFEST.json", "SHA256SUMS", "README.txt"
_COMMAND = "command.txt"
_STAMP = (1980, 1, 1, 0, 0, 0)  # of every file in the archive, so that its bytes do not depend on when it is packed
_ABOUT = """\
A leaderboard of knowledge-distillation methods and its sources, packed by `kdbench export`.

{parts}

In this folder

    {check}
        checks that each file is as it was packed.
    kdbench leaderboard --check
        checks that the tables follow from the rows.
    kdbench reproduce {run} --runs runs
        retrains a run and reports whether the weights are bit-identical, or what differs.
        The runs are the folders in runs/; pass --data DIR for images that do not come with kdbench.

The last two need kdbench. Another version may write the tables differently.
This archive was packed by version
{version}.
"""
_ENVIRONMENT = ("kdbench", "python", "torch", "torchvision", "gin", "device", "gpus", "platform", "commit", "clean")


def export(runs: Path, out: Path, to: Path | None) -> Path:
    """Pack the leaderboard in `out`.

    Args:
        runs: the folder of all runs; a run whose folder is gone is packed as its command.
        out: the folder of the leaderboard.
        to: the archive; None: `out` with the ending .zip.

    Returns:
        The path of the archive. The same leaderboard, folders and installed packages give the same bytes.

    Raises:
        UserError: the leaderboard does not follow from its rows, its page or a plot is out of date, a link leads out of a
            folder, or `to` does not end in .zip.
    """
    to = to or out.with_name(f"{out.name}.zip")
    if to.suffix != ".zip" or to.is_dir():
        raise UserError(f"--to must be a file name that ends in .zip, not '{to}'")
    wrong = check(out)
    if wrong:
        raise UserError(f"{wrong[0]}; fix it with: {_regenerate(runs, out)}")
    content = (out / CSV).read_bytes()
    rows = records.canonical(records.from_csv(content, CSV)[0])
    if rows.empty:
        raise UserError(f"there are no runs in {out / CSV}; create some with: kdbench run")
    stale = _out_of_date(out, content)
    if stale:
        rest = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
        verb = "are" if rest else "is"
        raise UserError(
            f"{stale[0]}{rest} {verb} out of date with respect to {CSV}; delete what you do not want, or fix it with: "
            f"{_regenerate(runs, out)}"
        )
    files = {**dict(_board(out, to)), **dict(_runs(rows, runs)), **_environment(rows)}
    commit, clean = provenance.of_this_code()
    files[MANIFEST] = _json(
        {
            "kdbench": __version__,
            "commit": commit,
            "clean": clean,
            "newest": max(_column(rows, "provenance.finished_at")),
            "runs": len(rows),
        }
    )
    version = __version__ + (f", commit {commit}" if commit else "") + " with changes" * (clean is False)
    files[ABOUT] = _about(files, next(iter(rows["run"][rows["status"] == "finished"]), "RUN"), version)
    files = dict(sorted(files.items()))
    records.write(to, archive_of({**files, SUMS: sums_of(files)}))
    return to


def _regenerate(runs: Path, out: Path) -> str:
    """The command that regenerates the leaderboard with all the files that it has now."""
    page = out / README
    words = readme.made_with(page.read_text(encoding="utf-8", errors="replace")).words() if page.is_file() else []
    words += ["--runs", str(runs), "--out", str(out)]
    words += ["--html"] * (out / PAGE).is_file() + ["--plots"] * bool(figures.paths(out))
    return shlex.join(["kdbench", "leaderboard", *words])


def _out_of_date(out: Path, content: bytes) -> list[Path]:
    """The page and the plots that do not hold the checksum of these rows; they cannot be generated from the rows alone."""
    sha256 = hashlib.sha256(content).hexdigest().encode()
    made = [path for path in (out / PAGE, *figures.paths(out)) if path.is_file()]
    return [path for path in made if sha256 not in path.read_bytes()]


def _board(out: Path, to: Path) -> Iterator[tuple[str, bytes]]:
    """The leaderboard's files by name in the archive, without hidden files, kept damaged rows and the archive itself."""
    for path in out.rglob("*"):
        parts = path.relative_to(out).parts
        hidden = any(part.startswith(".") for part in parts) or path.match("results.damaged-*.csv")
        if not hidden:
            _check_link(path, out)
        if path.is_file() and path.resolve() != to.resolve() and not hidden:
            yield "/".join(("leaderboard", *parts)), path.read_bytes()


def _runs(rows: pd.DataFrame, runs: Path) -> Iterator[tuple[str, bytes]]:
    """The configuration and own files of each run, or its command if its folder is gone."""
    for run, command in zip(rows["run"], _column(rows, "provenance.command"), strict=True):
        folder = RunFolder(runs, run)
        _check_link(folder / CONFIG, runs)
        try:
            yield f"runs/{run}/{CONFIG}", read_regular(folder / CONFIG)
        except OSError:
            yield f"runs/{run}/{_COMMAND}", f"{printable(command)}\n".encode()
        for path in sorted((folder / PLUGIN).rglob("*")):
            _check_link(path, runs)
            if path.is_file():
                yield f"runs/{run}/{path.relative_to(runs / run).as_posix()}", path.read_bytes()


def _check_link(path: Path, folder: Path) -> None:
    """Refuse to pack what lies outside a folder, to which a link in it leads."""
    if leads_out(path, folder):
        raise UserError(
            f"{path} leads out of {folder} by a link; delete the link, or replace it with what it stands for"
        )


def _environment(rows: pd.DataFrame) -> dict[str, bytes]:
    """Versions and machines of the runs, each value with the number of its runs, and the packages installed here."""
    counts = {name: _column(rows, f"provenance.{name}") for name in _ENVIRONMENT}
    made_with = {name: dict(sorted(pd.Series(cells).value_counts().items())) for name, cells in counts.items()}
    installed = sorted({f"{package.name}=={package.version}" for package in distributions()}, key=str.lower)
    return {
        "environment/runs.json": _json(
            {n: {printable(k) or "unknown": int(c) for k, c in v.items()} for n, v in made_with.items()}
        ),
        "environment/packages.txt": "".join(f"{line}\n" for line in installed).encode(),
    }


def _column(rows: pd.DataFrame, name: str) -> list[str]:
    return list(rows[name]) if name in rows.columns else [""] * len(rows)


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def sums_of(files: Mapping[str, bytes]) -> bytes:
    """The checksums of all files, in the format of sha256sum."""

    def line(name: str, content: bytes) -> str:
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
        return f"{chr(92) * (escaped != name)}{hashlib.sha256(content).hexdigest()}  {escaped}\n"

    return "".join(line(name, content) for name, content in files.items()).encode()


def _about(files: Iterable[str], run: str, version: str) -> bytes:
    """The README.txt of the archive: its contents and how to check them.

    Args:
        files: the names in the archive.
        run: the id of a run, for the example.
        version: the version of kdbench that packs.
    """
    names = set(files)
    parts = {
        f"leaderboard/{CSV}": "one row per run, with all that is recorded of it",
        f"leaderboard/{README}": f"the tables, generated from the rows; {TIDY} has them with nine digits, {LATEX} for LaTeX",
        f"leaderboard/{PUBLISHED}": "published values for comparison with the tables",
        f"leaderboard/{PAGE}": "the tables as a web page, with the curves of the runs",
        f"leaderboard/{figures.PLOTS}/": "plots of the tables",
        f"runs/*/{CONFIG}": "a run's command and its complete configuration",
        f"runs/*/{PLUGIN}/": "the files of the run that are not kdbench's, such as its method; pass the folder with --plugins",
        f"runs/*/{_COMMAND}": "a run's command only, if its folder was gone",
        "environment/runs.json": "versions and machines of the runs, each value with the number of its runs",
        "environment/packages.txt": "the packages installed where this was packed",
        MANIFEST: "the version of kdbench that packed this, the number of runs, and when the newest finished",
        SUMS: "the checksums of all other files",
    }

    def exists(part: str) -> bool:
        before, _, after = part.partition("*")
        folder = after.endswith("/")
        return part == SUMS or any(
            name.startswith(before) and (after in name if folder else name.endswith(after)) for name in names
        )

    wide = max(map(len, parts)) + 2
    listed = [
        textwrap.fill(f"{part:<{wide}}{text}.", 110, subsequent_indent=" " * wide, break_long_words=False)
        for part, text in parts.items()
        if exists(part)
    ]
    check = f"sha256sum -c {SUMS}"
    return _ABOUT.format(parts="\n".join(listed), check=check, run=shlex.quote(run), version=version).encode()


def archive_of(files: dict[str, bytes]) -> bytes:
    """A zip archive of these files; the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _STAMP)
            entry.create_system = 3  # Unix, wherever it is packed
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()
