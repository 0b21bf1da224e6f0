import csv
import subprocess
import sys
from pathlib import Path

import pytest

from kdbench.report.records import LEADING, is_number_column
from kdbench.store import result
from kdbench.store.folder import LOG, RunFolder
from kdbench.store.result import Key, declaration, declared_keys, defects, dtype, is_number

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
    more = (("cost.*", float, "", "any"), ("cost.flops.exit1.*", str, "", "one"))
    assert declaration("cost.flops.exit1.x", more).name == "cost.flops.exit1.*"
    assert declaration("cost.flops.exit2.x", more).name == "cost.flops.*"
    assert declaration("cost.other", more).name == "cost.*"


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
    (found,) = defects({"status": "finished", name: value})
    assert sentence in found


def test_plug_ins_declare_keys_of_their_own():
    more = (("latency.*", float, "milliseconds", "time of one image"), Key("size", int, "bytes", "of the network"))
    assert len(declared_keys(more)) == len(declared_keys()) + 2
    assert defects({"latency.p99": 1.5, "size": 3}) != []
    assert defects({"latency.p99": 1.5, "size": 3}, more) == []
    assert is_number("latency.p50", more)
    with pytest.raises(ValueError, match=r"'seed' is declared twice"):
        declared_keys((("seed", int, "", "again"),))


def test_a_finished_run_is_never_lost_to_an_undeclared_key(tmp_path):
    folder = RunFolder(tmp_path, "a")
    folder.begin("")
    stored = {"status": "finished", "accuracy.lost": 1.0, "seed": "3"}
    folder.finish(stored)
    assert folder.result() == stored
    logged = (folder / LOG).read_text()
    assert "'accuracy.lost'" in logged
    assert "'seed' is '3'" in logged


def test_the_store_imports_no_torch():
    program = (
        "import sys, kdbench.store.result, kdbench.store.folder, kdbench.store.lease, kdbench.store.ids, "
        "kdbench.store.studies, kdbench.store.provenance; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
