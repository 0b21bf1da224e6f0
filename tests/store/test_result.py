import csv
import subprocess
import sys
from pathlib import Path

import pytest

from kdbench.config import places, result_keys
from kdbench.errors import UserError
from kdbench.report.records import LEADING, is_number_column
from kdbench.store import result
from kdbench.store.folder import LOG, RunFolder
from kdbench.store.result import declaration, declared_keys, defects, dtype, ill_typed, is_number, is_plausible, typed

ROOT = Path(__file__).parents[2]


def test_the_document_is_what_the_declaration_generates():
    assert (ROOT / "docs" / "results.md").read_text() == result.document(), (
        "run: python -m kdbench.store.result > docs/results.md"
    )


def test_every_column_of_the_committed_rows_is_declared():
    with (ROOT / "leaderboard" / "results.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    assert len(columns) > 90
    assert [name for name in columns if declaration(name) is None] == []
    assert all(is_number(name) for name in columns if is_number_column(name))


def test_the_leading_columns_are_those_of_the_rows():
    assert list(result.LEADING) == LEADING


def test_a_key_is_found_before_its_family_and_the_longest_family_first():
    assert declaration("cost.flops").name == "cost.flops"
    assert declaration("cost.flops.exit1").name == "cost.flops.*"
    assert declaration("robustness.noise.0.02").name == "robustness.noise.*"
    assert declaration("convergence.images") is None
    assert declaration("cost") is None


def test_types_of_columns():
    assert is_number("accuracy.last")
    assert is_number("seed")
    assert not is_number("provenance.clean")
    assert not is_number("run")
    assert not is_number("accuracy.unheard_of")
    assert [dtype(name) for name in ("accuracy.last", "seed", "provenance.clean", "run", "unheard_of")] == [
        "float64", "Int64", "boolean", "string", "string",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "good",
    [
        {"accuracy.last": 50},
        {"accuracy.last": 50.5, "exits.exit1": 3.5},
        {"accuracy.val": None, "error": None},
        {"seed": 3, "provenance.clean": True, "provenance.commit": None},
    ],
)
def test_a_result_as_declared_has_no_defects(good):
    assert defects(good) == []


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("accuracy.lost", 50.0, "the key 'accuracy.lost', which is not declared"),
        ("accuracy.last", "50", "'accuracy.last' is '50', but it is declared as number"),
        ("accuracy.last", None, "'accuracy.last' is None, but it is declared as number"),
        ("accuracy.last", True, "declared as number"),
        ("accuracy.last", float("nan"), "declared as number"),
        ("seed", 1.0, "declared as integer"),
        ("seed", True, "declared as integer"),
        ("provenance.clean", 1, "declared as true or false or null"),
        ("run", 1, "declared as text"),
    ],
)
def test_each_defect_gets_a_sentence(name, value, sentence):
    (defect,) = defects({"status": "finished", name: value})
    assert sentence in defect


@pytest.fixture
def latency(own_plugins, tmp_path):
    """A plug-in folder with a measure."""
    path = tmp_path / "mine" / "measures" / "latency.py"
    path.parent.mkdir(parents=True)
    table = {"latency": ("of", {"keys": {"latency.*": ("float", "milliseconds", "time of one image")}})}
    path.write_text(f'"""Latency."""\nMEASURES = {table!r}\n\n\ndef of(evaluation):\n    return {{}}\n')
    places.add_plugins([str(tmp_path / "mine")])
    return path


def test_measures_of_plug_ins_declare_keys_of_their_own(latency):
    assert defects({"latency.p99": 1.5, "latency.p50": None}) == []
    assert defects({"latency.p99": "1"}) == ["the result's 'latency.p99' is '1', but it is declared as number or null"]
    assert is_number("latency.p50")
    assert declared_keys()["latency.*"].unit == "milliseconds"
    assert "latency" not in result.document()


def test_without_the_plug_in_its_keys_are_unknown(own_plugins):
    assert declaration("latency.p99") is None


def test_a_key_declared_here_and_by_a_measure_is_refused(own_plugins, monkeypatch):
    twice = {"seed": result_keys.Key("int", "", "again")}
    monkeypatch.setattr(result_keys, "declared", lambda: twice)
    result._declared_keys.cache_clear()
    with pytest.raises(UserError, match="'seed' is declared twice"):
        declared_keys()


def test_a_finished_run_is_not_lost_to_a_wrong_declaration(latency, tmp_path):
    latency.write_text(latency.read_text().replace("'milliseconds', ", ""))
    places.add_plugins([])
    folder = RunFolder(tmp_path, "a")
    folder.begin("")
    folder.finish({"status": "finished"})
    assert folder.result() == {"status": "finished"}
    assert "(type, unit, meaning)" in (folder / LOG).read_text()


def test_a_finished_run_is_never_lost_to_an_undeclared_key(tmp_path):
    folder = RunFolder(tmp_path, "a")
    folder.begin("")
    stored = {"status": "finished", "accuracy.lost": 1.0, "seed": "3"}
    folder.finish(stored)
    assert folder.result() == stored
    logged = (folder / LOG).read_text()
    assert "'accuracy.lost'" in logged
    assert "'seed' is '3'" in logged


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("seed", "3", "its 'seed' is '3', but it is declared as integer"),
        ("accuracy.last", [71.0], "its 'accuracy.last' is [71.0], but it is declared as number"),
        ("accuracy.last", 1e6, "its 'accuracy.last' is 1000000.0, which cannot have been measured"),
        ("exits.exit1", -0.5, "which cannot have been measured"),
        ("seconds.train", 1e308, "which cannot have been measured"),
        ("images_seen", 10**400, "which cannot have been measured"),
        ("method", {"a": "b" * 500}, "…, but it is declared as text"),
    ],
)
def test_entries_that_no_run_can_have_written_are_named_and_left_out(name, value, sentence):
    content = {"status": "finished", "accuracy.val": 50.0, name: value}
    ((wrong, found),) = ill_typed(content)
    assert wrong == name
    assert sentence in found
    assert len(found) < 200
    assert typed(content) == {"status": "finished", "accuracy.val": 50.0}


def test_null_and_what_kdbench_does_not_declare_are_left_alone():
    content = {"accuracy.last": None, "seed": 3, "mine.value": [1], "latency.p99": "1", "provenance.gpus": 1}
    assert typed(content) == content


def test_the_committed_rows_are_plausible():
    with (ROOT / "leaderboard" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = [(name, float(cell)) for row in rows for name, cell in row.items() if cell and is_number(name)]
    assert len(numbers) > 1000
    assert all(is_plausible(name, value) for name, value in numbers)


def test_the_store_imports_no_torch():
    program = (
        "import sys, kdbench.store.result, kdbench.store.folder, kdbench.store.lease, kdbench.store.ids, "
        "kdbench.store.studies, kdbench.store.provenance; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
