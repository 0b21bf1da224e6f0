"""Finished runs as a submission to a public leaderboard: one archive, and the text of the pull request. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.audit.export import archive_of, sums_of
from kdbench.errors import UserError, reason
from kdbench.files import read_regular
from kdbench.plan.spec import is_run_name
from kdbench.report import records
from kdbench.report.foreign import schema
from kdbench.report.foreign.source import RESULTS, SUMS, Source
from kdbench.report.formats.markdown import code, escape, markdown
from kdbench.report.tables.tables import tables
from kdbench.store import transfer
from kdbench.store.folder import CONFIG, EPOCHS, PLUGIN, RESULT, RunFolder
from kdbench.words import count

TEXT = "PULL_REQUEST.md"
_NEEDED = ("weights.sha256", "data.sha256", "provenance.command", "provenance.kdbench")
"""Entries without which nobody can repeat a run and compare it."""
_MACHINE = ("kdbench", "commit", "python", "torch", "device", "platform")


class Refused(Exception):
    """Runs that cannot be submitted.

    Attributes:
        sentences: one for each reason.
    """

    def __init__(self, sentences: list[str]):
        super().__init__(*sentences)
        self.sentences = sentences


@dataclass(frozen=True)
class Submission:
    """Runs that are ready to be submitted.

    Attributes:
        files: the files of the archive by name.
        text: the text of the pull request, in Markdown.
        runs: ids of the runs, their teachers' included.
    """

    files: Mapping[str, bytes]
    text: str
    runs: tuple[str, ...]

    def write(self, to: Path) -> Path:
        """Write the archive, and the text next to it; returns the path of the text."""
        archive = archive_of(dict(self.files))
        text = to.with_suffix(".md")
        records.write(to, archive)
        records.write(text, f"{self.text}\nSHA-256 of {to.name}: `{hashlib.sha256(archive).hexdigest()}`\n".encode())
        return text


def refusals(result: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each reason why the result of a run cannot be submitted."""
    run = result.get("run")
    if result.get("status") != "finished":
        yield f"the run '{run}' has failed ({result.get('error')}); repeat it, or select other runs"
        return
    if result.get("selected_on_test"):
        yield f"the run '{run}' used the test set to select (Selection.on_test); repeat it without"
    if result.get("provenance.clean") is False:
        yield f"the run '{run}' was done with uncommitted changes in the code; commit them, and repeat it with --rerun"
    if lacking := [key for key in _NEEDED if not result.get(key)]:
        yield f"the run '{run}' does not record its {lacking[0]}; repeat it with this version of kdbench"


def remarks(result: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each fact about a run that the readers of its row must know."""
    if result.get("control", "{}") not in ("", "{}"):
        yield "is a control: " + str(result["control"])
    if result.get("teacher") and not result.get("teacher.run"):
        yield f"was taught by a weight file ({result['teacher']}, SHA-256 {result.get('teacher.sha256')}), which others need"
    if result.get("teacher.doubt"):
        yield f"has a doubtful teacher: {result['teacher.doubt']}"
    if result.get("data.skipped"):
        yield f"left out {count(result['data.skipped'], 'image')} that could not be read"
    if result.get("provenance.own_files"):
        yield f"was made with files that are not kdbench's: {result['provenance.own_files']}"
    if result.get("provenance.mixed"):
        yield f"was done by processes that differ in {result['provenance.mixed']}"


def prepare(runs: Path, ids: Sequence[str]) -> Submission:
    """Read and check runs; nothing is written.

    Args:
        runs: the folder of all runs.
        ids: the runs to submit; the runs that taught them are added.

    Raises:
        Refused: some run cannot be submitted.
    """
    results: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    waiting = list(ids)
    while waiting:
        run = waiting.pop(0)
        if run in results:
            continue
        try:
            result = _result(runs, run)
        except UserError as error:
            wrong.append(str(error))
            continue
        results[run] = result
        wrong += refusals(result)
        waiting += filter(None, str(result.get("teacher.run") or "").split(","))
    if wrong:
        raise Refused(list(dict.fromkeys(wrong)))
    rows = records.frame(results.values())
    content = records.to_csv(rows)
    schema.rows(Source("these runs", "", content))  # as they are checked when they are merged
    files = {RESULTS: content}
    for run in sorted(results):
        files |= dict(_files(RunFolder(runs, run)))
    text = _text(rows, results)
    files = dict(sorted({**files, TEXT: text.encode()}.items()))
    return Submission({**files, SUMS: sums_of(files)}, text, tuple(sorted(results)))


def _result(runs: Path, run: str) -> dict[str, Any]:
    if not is_run_name(run) or not (runs / run).is_dir():
        raise UserError(
            f"the run '{run}', which taught one of these, is not in {runs}; its row cannot be repeated without"
        )
    folder = RunFolder(runs, run)
    folder.check_links()
    try:
        result = folder.checked(RESULT)
    except FileNotFoundError:
        raise UserError(
            f"the run '{run}' has no result yet; finish it with kdbench run, or select other runs"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"the {RESULT} of the run '{run}' cannot be used: {reason(error)}") from None
    if result.get("run") != run:
        raise UserError(f"the {RESULT} in the folder '{run}' is of the run '{result.get('run')}'")
    return result | transfer.keys(folder, result)


def _files(folder: RunFolder) -> Iterator[tuple[str, bytes]]:
    """The files of a run that a reader needs to check and repeat it."""
    run = folder.path.name
    own = sorted(path for path in (folder / PLUGIN).rglob("*") if path.is_file())
    for path in (folder / CONFIG, folder / EPOCHS, folder / RESULT, *own):
        try:
            yield f"runs/{run}/{path.relative_to(folder.path).as_posix()}", read_regular(path)
        except OSError as error:
            raise UserError(f"the {path.name} of the run '{run}' cannot be read: {reason(error)}") from None


def _text(rows: Any, results: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of the pull request."""
    made = tables(rows)
    titles = [f"### {escape(table.title)}\n\n{markdown(table)}" for table in made if not table.is_of_teachers]
    machines = {
        tuple(str(result.get(f"provenance.{key}") or "unknown") for key in _MACHINE) for result in results.values()
    }
    listed = "\n".join(
        f"- {code(run)}: {code(str(result['provenance.command']))}"
        + "".join(f"\n  - {escape(remark)}" for remark in remarks(result))
        for run, result in sorted(results.items())
    )
    made_with = "\n".join("- " + ", ".join(map(escape, facts)) for facts in sorted(machines))
    example = next(iter(sorted(results)))
    return (
        f"# {count(len(results), 'run')} for the leaderboard\n\n"
        + "\n".join(titles)
        + f"\n## Runs and commands\n\n{listed}\n\n## Made with\n\n({', '.join(_MACHINE)})\n\n{made_with}\n"
        + "\n## How to check\n\n"
        + "    kdbench leaderboard --merge submission.zip    # checks the rows, adds them, and marks them as not confirmed\n"
        + f"    kdbench reproduce {example}    # retrains one of them and confirms it, or not\n\n"
        + "The archive holds the rows, and the configuration, result, curves and own files of each run; `sha256sum -c SHA256SUMS`\n"
        + "checks it. `kdbench submit` has refused runs that failed, that were done with uncommitted changes, or that used the\n"
        + "test set to select.\n"
    )
