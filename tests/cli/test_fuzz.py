"""Random damage to all that a stranger's folder or board holds: no traceback, no hang, no import, nothing outside touched.

Seconds by default; KDBENCH_FUZZ=10000 tries so many examples of each test.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdbench.audit import reproduce
from kdbench.cli.main import main
from kdbench.errors import RunError, UserError
from kdbench.plan import expand, request
from kdbench.store.folder import CHECKPOINT, CONFIG, EPOCHS, LOG, PROGRESS, RESULT, SPEC, SUBMISSION, RunFolder

EXAMPLES = int(os.environ.get("KDBENCH_FUZZ", "8"))
SECONDS = 120
"""A command that takes longer hangs."""
PAYLOAD = "kdbench_fuzz_payload"
"""A module that could be imported; no text may get it imported."""

GOOD, BAD = expand.plan(request.parse(["methods=ce", "dataset=digits", "seeds=0,1"]))
BOARD = (Path(__file__).parents[2] / "leaderboard" / "results.csv").read_bytes()
OUTCOME = {
    **{"status": "finished", "accuracy.last": 71.0, "accuracy.val": 70.0, "seconds.train": 9.0, "images_seen": 1000},
    **{"exits.exit1": 60.0, "cost.images_per_second": 111.1, "weights.sha256": "a" * 64, "teacher.run": None},
    **{"provenance.command": BAD.command(), "provenance.threads": 1, "provenance.finished_at": "2026-01-01T00:00:00"},
}
FILES = {
    RESULT: {**BAD.identity(), **OUTCOME},
    SPEC: BAD.plain(),
    PROGRESS: {
        **{"images": 3, "budget": 9, "epoch": 1, "epochs": 2, "images_per_second": 5.0, "validation": 9.5},
        **{"measured": None, "at": 1.7e9},
    },
    SUBMISSION: {"job": "7", "log": "runs/.slurm/7.out", "cluster": "default"},
    "lease.1": {"host": "h", "boot": "b", "namespace": "n", "pid": 1, "started": "1", "job": "", "restart": 0},
}
TEXTS = {
    CONFIG: f"# {BAD.command()}\n\n{BAD.config}",
    EPOCHS: "epoch,images,seconds,accuracy.val\n1,10,1.0,50.0\n2,20,2.0,60.0\n",
    LOG: "resumed\n",
}

odd_texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["../../secret", "/etc/passwd", "\x1b[2J", "=1+1", "\udcff", "", "a" * 5000, f"import {PAYLOAD}", "1e999"]
    ),
)
odd_numbers = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.sampled_from([10**400, -1, 1e308, -1e308, 99999, 2**63, 5e-324])
)
odd_values = st.recursive(
    st.one_of(st.none(), st.booleans(), odd_numbers, odd_texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(odd_texts, inner, max_size=3)),
    max_leaves=8,
)


@st.composite
def damaged_objects(draw, content: dict) -> bytes:
    """A JSON object with some entries changed, removed or added; or what is left of its text."""
    changed = dict(content)
    for key in draw(st.lists(st.sampled_from(sorted(content)), min_size=1, max_size=3)):
        changed[key] = draw(odd_values)
    for key in draw(st.lists(st.sampled_from(sorted(content)), max_size=1)):
        changed.pop(key, None)
    changed |= draw(st.dictionaries(odd_texts, odd_values, max_size=2))
    with contextlib.suppress(ValueError):
        return (
            draw(damaged_texts(json.dumps(changed))) if draw(st.integers(0, 3)) == 0 else json.dumps(changed).encode()
        )
    return b"{}"


@st.composite
def damaged_texts(draw, text: str) -> bytes:
    """A text with a piece replaced by other bytes."""
    content = text.encode(errors="surrogatepass")
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 40)))
    put = draw(
        st.one_of(st.binary(max_size=20), st.sampled_from([b"\n", b"'''", b"[" * 3000, b"\0", b",", b'"', b"\xff"]))
    )
    return content[:start] + put + content[end:]


KINDS = {
    "folder": lambda path, secret: path.mkdir(),
    "pipe": lambda path, secret: os.mkfifo(path),
    "link": lambda path, secret: path.symlink_to(secret),
    "circle": lambda path, secret: path.symlink_to(path),
    "device": lambda path, secret: path.symlink_to("/dev/zero"),
}


class Watch:
    """What happens while it is on: files that are opened, modules that are imported, programs that are started."""

    def __init__(self) -> None:
        self.on = False
        self.events: list[tuple[str, str]] = []
        sys.addaudithook(self._hear)  # which cannot be removed

    def _hear(self, event: str, values: tuple) -> None:
        if self.on and event in (
            "open",
            "import",
            "subprocess.Popen",
            "os.system",
            "os.rename",
            "os.remove",
            "os.symlink",
        ):
            self.events.append((event, str(values[0])))


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture
def place(watch, monkeypatch, tmp_path) -> Path:
    """An empty folder, the current one, next to a secret that nothing may open and a module that nothing may import."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text('{"run": "secret"}')
    (outside / f"{PAYLOAD}.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(outside))
    monkeypatch.setenv("KDBENCH_PLUGINS", "")
    monkeypatch.setenv("PATH", str(outside))  # no SLURM, no git
    return outside


@contextlib.contextmanager
def guarded(watch: Watch, place: Path) -> Iterator[Path]:
    """A new current folder in which a block must end in time, open nothing of `place` and start nothing."""

    def late(*_: object) -> None:
        raise AssertionError(f"it hangs: {SECONDS} s")

    before = Path.cwd()
    folder = Path(tempfile.mkdtemp(dir=place.parent))
    handler = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        os.chdir(folder)
        yield folder
        bad = [
            (event, name)
            for event, name in watch.events
            if str(place / "secret") in name or PAYLOAD in name or event in ("os.system", "os.symlink")
        ]
        assert not bad
        assert sorted(path.name for path in place.iterdir()) == [f"{PAYLOAD}.py", "secret"]
    finally:
        watch.on = False
        watch.events.clear()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        os.chdir(before)
        shutil.rmtree(folder)


def put(runs: Path, spec, files: dict[str, bytes]) -> RunFolder:
    folder = RunFolder(runs, spec.id)
    folder.path.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / CHECKPOINT).touch()
    return folder


def good_files(spec) -> dict[str, bytes]:
    result = {**spec.identity(), **OUTCOME, "provenance.command": spec.command()}
    return {RESULT: json.dumps(result).encode(), CONFIG: f"# {spec.command()}\n\n{spec.config}".encode()}


def try_all(watch: Watch, folder: Path, id_: str) -> None:
    """Every command that reads run folders, and the preparation of a reproduction."""
    watch.on = True
    for words in (
        ["status", "--all"],
        ["status", "--json"],
        ["logs", id_],
        ["leaderboard"],
        ["diff", GOOD.id, id_],
        ["power"],
    ):
        assert main(words) in (0, 1, 2)
    assert main(["status", "state=done"]) == 0, "the good run is shown"
    with contextlib.suppress(UserError, RunError):
        reproduce.prepare(id_, folder / "runs")
    watch.on = False
    assert GOOD.id in (folder / "leaderboard" / "results.csv").read_text()


fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@fuzz
@given(st.data())
def test_damaged_files_of_a_run_folder(watch, place, data):
    name = data.draw(st.sampled_from([*FILES, *TEXTS]))
    kind = data.draw(st.sampled_from(["content"] * 6 + list(KINDS)))
    open_ = name not in (RESULT, CONFIG) and data.draw(st.booleans())
    files = {n: json.dumps(content).encode() for n, content in FILES.items() if not (open_ and n == RESULT)}
    files |= {n: content.encode() for n, content in TEXTS.items()}
    if kind == "content":
        files[name] = data.draw(damaged_objects(FILES[name]) if name in FILES else damaged_texts(TEXTS[name]))
    else:
        files.pop(name, None)
    with guarded(watch, place) as folder:
        put(folder / "runs", GOOD, good_files(GOOD))
        bad = put(folder / "runs", BAD, files)
        if kind != "content":
            KINDS[kind](bad / name, place / "secret")
        try_all(watch, folder, BAD.id)


@fuzz
@given(
    name=st.text(alphabet=st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
)
def test_odd_names_of_folders(watch, place, name):
    with guarded(watch, place) as folder:
        put(folder / "runs", GOOD, good_files(GOOD))
        if len(name.encode()) > 200 or name in (".", "..", "tuning", "reproduced"):
            return
        (folder / "runs" / name).mkdir()
        for file, content in good_files(BAD).items():
            (folder / "runs" / name / file).write_bytes(content)
        try_all(watch, folder, name)


@fuzz
@given(st.data())
def test_damaged_boards(watch, place, data):
    lines = BOARD.decode().splitlines(keepends=True)
    some = [lines[0], *data.draw(st.lists(st.sampled_from(lines[1:]), min_size=1, max_size=4, unique=True))]
    content = data.draw(damaged_texts("".join(some)))
    with guarded(watch, place) as folder:
        put(folder / "runs", GOOD, good_files(GOOD))
        (folder / "leaderboard").mkdir()
        (folder / "leaderboard" / "results.csv").write_bytes(content)
        watch.on = True
        run = some[1].split(",")[9]
        for words in (
            ["leaderboard", "--check"],
            ["power", "--out", "leaderboard"],
            ["export"],
            ["leaderboard"],
            ["export"],
        ):
            assert main(words) in (0, 1, 2)
        with contextlib.suppress(UserError, RunError):
            reproduce.prepare(run, folder / "runs", board=folder / "leaderboard")


@fuzz
@given(
    values=st.lists(odd_numbers, min_size=4, max_size=4),
    keys=st.lists(st.sampled_from(["accuracy.last", "seconds.train", "exits.exit1", "images_seen", "cost.flops_training",
                                   "cost.flops", "cost.flops.exit1", "robustness.severity.1", "convergence.auc"]),
                  min_size=4, max_size=4),
)  # fmt: skip
def test_absurd_numbers_take_no_table_page_or_plot_down(watch, place, values, keys):
    with guarded(watch, place) as folder:
        for spec in (GOOD, BAD):
            files = good_files(spec)
            changed = json.loads(files[RESULT]) | {"cost.flops": 1e6, "cost.flops.exit1": 5e5, "provenance.device": "x"}
            changed |= dict(zip(keys, values, strict=True)) if spec is BAD else {}
            put(folder / "runs", spec, {**files, RESULT: json.dumps(changed).encode(), EPOCHS: TEXTS[EPOCHS].encode()})
        watch.on = True
        assert main(["leaderboard", "--html", "--plots", "columns=accuracy,exits.exit1,flops,auc,train_seconds"]) == 0
        assert main(["leaderboard", "--check"]) == 0
        assert main(["status", "--all"]) == 0
