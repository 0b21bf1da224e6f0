"""What `list`, `show` and `--dry-run` print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kdbench.config import extensions, places, resolve, signature
from kdbench.config.cluster import Cluster
from kdbench.errors import unknown
from kdbench.plan.request import Request
from kdbench.plan.spec import Spec
from kdbench.store.folder import RunFolder

KINDS = (
    "methods", "controls", "students", "datasets", "readers", "recipes", "sweeps", "measures", "columns", "launchers",
    "clusters",
)  # fmt: skip


def _console() -> Console:
    # Into a pipe, lines keep their length: whoever greps them wants whole ones.
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=200)


def print_members(kind: str | None) -> None:
    """Names, one line about each, and where it comes from, of one kind or of all.

    Raises:
        UserError: there is no such kind.
    """
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    for each in [kind] if kind else KINDS:
        table = Table(title=None if kind else each, title_justify="left", box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(style="dim", no_wrap=False)
        table.add_column(style="dim", no_wrap=True)
        for row in _members(each):
            table.add_row(*row)
        _console().print(table)
        if not kind:
            print()


def _members(kind: str) -> Iterable[tuple[str, ...]]:
    if kind == "columns":
        from kdbench.report.tables import columns

        return [(column.name, f"{column.title.replace('{}', '…')}: {column.about}") for column in columns.every()]
    for each, described in extensions.KINDS.items():
        if described.plural == kind:
            return [(e.name, e.summary, e.origin) for e in extensions.members(each).values()]
    group = {word: group for group, word in places.GROUPS.items()}[kind]
    paths = places.members(group)
    if group == "method":
        paths = {name: path for name, path in paths.items() if name not in places.members("control")}
    return [(name, _about(group, name, path), places.origin(path)) for name, path in sorted(paths.items())]


def _about(group: str, name: str, path: Path) -> str:
    if group == "method" and not resolve.is_variant(name):
        found = signature.of_method(name)
        return found.summary + (" [teacher]" if found.attributes.get("needs_teacher") else "")
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.removeprefix("#").strip()


def print_configuration(request: Request) -> None:
    """Every value of the selected methods, with the file and line that set it; what all share comes once."""
    for dataset in request.dataset:
        default = resolve.group_bindings("dataset", dataset)["Defaults.recipe"].value
        for recipe in request.recipe or (default,):
            resolved = [resolve.resolve(method, dataset, recipe, request.overrides) for method in request.methods]
            print(f"# dataset={dataset} recipe={recipe}: protocol {resolved[0].protocol()}")
            _print_bindings(resolved[0].shared.items())
            for each in resolved:
                print(f"\n# methods={each.method}")
                _print_bindings(each.own.items())
                for name, dimension in resolve.search_space(each.method).items():
                    print(f"# kdbench tune chooses {name}: {dimension}")
            print("\n# machine (no part of what defines a result)")
            _print_bindings(resolved[0].machine.items())
            print("\n# what is measured at the end (no part of it either)")
            _print_bindings(resolved[0].measures.items())


def _print_bindings(bindings: Iterable[tuple[str, resolve.Binding]]) -> None:
    lines = [(f"{key} = {binding.value!r}", binding.origin) for key, binding in bindings]
    width = max((len(line) for line, _ in lines), default=0)
    for line, origin in lines:
        print(f"{line:<{width}}  # {origin}")


def print_plan(specs: Sequence[Spec], runs: Path, rerun: bool) -> None:
    """One line a run: id, state, and the teacher run that it waits for."""
    table = Table(box=None, pad_edge=False)
    for title in ("run", "state", "protocol", "teacher"):
        table.add_column(title, no_wrap=True)
    counts = {"finished": 0, "to do": 0}
    for spec in specs:
        state = RunFolder(runs, spec.id).state()
        word = {"absent": "to do", "failed": "to do (failed before)", "finished": "finished"}[state]
        if rerun and state == "finished" and not spec.is_teacher:
            word = "to do (again)"
        counts["finished" if word == "finished" else "to do"] += 1
        purpose = "is a teacher" if spec.is_teacher else spec.teacher_run or spec.teacher_file or ""
        table.add_row(spec.id, word, spec.protocol, purpose)
    _console().print(table)
    print(f"{len(specs)} runs: {counts['finished']} finished, {counts['to do']} to do")


def print_arrays(specs: Sequence[Spec], runs: Path, cluster: Cluster) -> None:
    """What `executor=slurm` would submit of the runs to be done: each array's jobs, options of sbatch, and cost."""
    from kdbench.launch.slurm import estimate, queue
    from kdbench.launch.slurm import submission as submission_

    submission = submission_.Submission(specs, runs, cluster, queue.queue() or {})
    if submission.known:
        print(f"{submission_.count(len(submission.known), 'run')} left to jobs that were submitted before")
    past = estimate.Past(runs)
    for array in submission.arrays:
        print(f"\n{array}")
        print(f"  sbatch {' '.join(submission.options(array))}")
        at_once = 1 if array.processes > 1 else max(1, array.gpus)
        units = (array.gpus, "GPU") if array.gpus else (cluster.cpus * array.processes, "CPU")
        print(f"  {estimate.sentence(array.jobs, past, at_once, *units)}")
