"""tables.csv: what the tables show, at full precision, for whoever goes on computing."""

import csv
import io

import pytest

from kdbench.report.formats.tidy_csv import document
from kdbench.report.tables.tables import summarise


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_line_by_hand(result):
    ce = [result("ce", seed, 50.0 + seed) for seed in range(3)]
    kd = [result("kd", seed, a, taught=True, provenance__commit="abc") for seed, a in enumerate((52.0, 54.0, 53.0))]
    kd.append(result("kd", 3, None, teacher="resnet20", status="failed", error="boom"))
    first, second = read(document(summarise(ce + kd)))
    assert {
        key: first[key] for key in ("dataset", "student", "recipe", "protocol", "rank", "method", "n", "failed")
    } == {
        **{"dataset": "digits", "student": "cnn", "recipe": "short", "protocol": "1f9c20"},
        **{"rank": "1", "method": "kd", "n": "3", "failed": "1"},
    }
    assert (first["teacher"], first["teacher_accuracy"], first["parameters"]) == ("resnet20", "61.26", "{}")
    assert [float(first[f"accuracy{end}"]) for end in ("", ".n", ".sd")] == [53.0, 3.0, pytest.approx(1.0, abs=1e-12)]
    assert float(first["delta.low"]) == pytest.approx(2 - 2.484138, abs=1e-6)
    assert float(first["p"]) == pytest.approx(0.0741799, abs=1e-7)
    assert (first["commits"], first["runs"], len(first["config"])) == ("abc", "kd0 kd1 kd2 kd3", 8)
    assert "failed: kd, seed 3, run kd3: boom" in first["notes"]
    assert (second["delta"], second["p"], second["teacher"]) == ("", "", "")


def test_the_columns_asked_for_are_those_of_all_tables(result):
    made = [result("ce", 0, 50.0), result("ce", run="x", dataset="cifar10") | {"calibration.ece": 4.125}]
    records = read(document(summarise(made), ["ece", "train_seconds"]))
    assert [(row["dataset"], row["ece"], row["ece.n"], row["ece.low"]) for row in records] == [
        ("cifar10", "4.125", "1", ""), ("digits", "", "", ""),
    ]  # fmt: skip
    assert "accuracy" not in records[0]
    assert "train_seconds.sd" not in records[0]


def test_never_reached_is_a_number_of_seeds_beside_the_mean_of_the_others(result):
    def reached(highest, images=None):
        return {"convergence.auc": 9.0, "convergence.highest": highest, "convergence.images.50": images}

    seeds = {"a": (reached(60.0, 400), reached(40.0), reached(55.5, 500)), "b": (reached(40.0),) * 3, "c": ({},) * 3}
    made = [result(name, seed) | told for name, three in seeds.items() for seed, told in enumerate(three)]
    records = read(document(summarise(made), ["images_to.50", "accuracy"]))
    heads = [f"images_to.50{end}" for end in ("", ".n", ".never")]
    assert {row["method"]: [row[head] for head in heads] for row in records} == {
        **{"a": ["450.0", "2", "1"], "b": ["", "0", "3"], "c": ["", "", ""]},
    }
    assert "accuracy.never" not in records[0]


def test_no_table_is_a_head_alone():
    assert len(document([]).splitlines()) == 1


def test_numbers_have_the_digits_that_all_versions_of_scipy_agree_on(result):
    ce = [result("ce", seed, 50.0 + seed / 3, cost__flops=12_345_678_901) for seed in range(3)]
    kd = [result("kd", seed, 52.0 + seed**2 / 7, cost__flops=12_345_678_901) for seed in range(3)]
    for row in read(document(summarise(ce + kd), ["accuracy", "delta", "p", "flops"])):
        assert row["flops"] == "12345678901.0", "a whole number is exact"
        for end in ("", ".sd", ".low", ".high"):
            value = row[f"accuracy{end}"]
            assert float(value) == float(f"{float(value):.9g}")
            assert len(value.replace(".", "").lstrip("-0")) <= 9
