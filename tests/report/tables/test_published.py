from __future__ import annotations

import csv
from pathlib import Path

import pytest

from kdbench.errors import UserError
from kdbench.report.formats.markdown import markdown_section
from kdbench.report.leaderboard import check, regenerate
from kdbench.report.tables.published import compare, read, section, source
from kdbench.report.tables.sections import Span
from kdbench.report.tables.tables import summarise

ROOT = Path(__file__).parents[3]
HEAD = "source,dataset,teacher,student,method,top1,note,epochs,images,epoch\n"
WHERE = {"dataset": "cifar100", "student": "resnet20", "images_seen": 12_000_000}
TAUGHT = {"teacher": "resnet56", "teacher.sha256": "c" * 64, "teacher.accuracy": 72.0}


@pytest.fixture
def rows(result):
    """kd at 70, 71, 72 (standard error 1/√3) and ce at 69, under the published budget."""
    kd = [result("kd", seed, 70.0 + seed) | WHERE | TAUGHT for seed in range(3)]
    return [*kd, result("ce", 0, 69.0) | WHERE]


@pytest.fixture
def values(tmp_path):
    def put(*lines):
        path = tmp_path / "published.csv"
        path.write_text(HEAD + "\n".join(lines) + "\n")
        return read(path)

    return put


def test_difference_in_units_of_our_standard_error(rows, values):
    theirs = values(
        "A,cifar100,resnet56,resnet20,kd,70.66,,240,50000,last", "A,cifar100,,resnet20,ce,69.06,,240,50000,last"
    )
    kd, ce = compare(summarise(rows), theirs)
    assert kd.difference == pytest.approx(0.34)
    assert kd.errors == pytest.approx(0.34 * 3**0.5)
    assert (ce.difference, ce.errors) == (pytest.approx(-0.06), None), "one seed has no standard error"
    assert (kd.conditions, ce.conditions) == ([], [])
    text = markdown_section(section([kd, ce], Span("here")))
    assert "| 71.00 ± 2.48 |       70.66 |        +0.34 |              +0.6 | A" in text
    assert "69.06 |        -0.06 |                 – | A" in text


def test_what_differs_is_told(rows, values):
    theirs = values(
        "A,cifar100,resnet56,resnet20,kd,70.66,one seed,200,50000,best", "B,cifar100,resnet56,resnet20,kd,70,,,,"
    )
    split = [row | {"accuracy.val": 60.0} for row in rows]
    first, second = compare(summarise(split), theirs)
    assert first.conditions == [
        "12.0M images seen in training here, and there 10.0M, 200 epochs of 50.0k",
        "a validation split is held out of the training images here",
        "they report the epoch that was best on the test set; we report the last",
        "their note: one seed",
    ]
    assert second.conditions[0] == "their budget is not known"
    assert second.conditions[-1] == "which epoch they report is not known"
    assert "held out of the training images here (all rows)" in markdown_section(section([first, second], Span("here")))


@pytest.mark.parametrize(
    "other", ["cifar10,resnet56,resnet20,kd", "cifar100,,resnet20,kd", "cifar100,resnet56,resnet32,kd"]
)
def test_another_setting_is_not_compared(rows, values, other):
    assert compare(summarise(rows), values(f"A,{other},70,,240,50000,last")) == []


def test_another_budget_is_named_and_not_compared(rows, values):
    short = [row | {"images_seen": 90_000} for row in rows]
    comparisons = compare(summarise(short), values("A,cifar100,,resnet20,ce,69.06,,240,50000,last"))
    text = markdown_section(section(comparisons, Span("here")))
    assert text.startswith("No table here has a row for which a value is published")
    assert "ce on cifar100 with resnet20 (69.00 after 90.0k images, published 69.06 after 12.0M" in text
    assert "|" not in text


def test_a_published_gain_is_compared_with_our_difference(rows, values):
    (pair,) = compare(summarise(rows), values("A,cifar100,resnet56,resnet20,kd,+3.8,,240,50000,last"))
    assert (pair.ours, pair.difference) == ((1, 1.0, None), pytest.approx(-2.8))
    assert "gains over each one's own ce" in pair.conditions


def test_a_folder_may_have_its_own_file(rows, store, tmp_path):
    out = tmp_path / "out"
    runs = store(*rows)
    regenerate(runs, out)
    assert source(out) == ROOT / "leaderboard" / "published.csv"
    assert "the file that comes with kdbench" in (out / "README.md").read_text()
    (out / "published.csv").write_text(f"{HEAD}mine,cifar100,resnet56,resnet20,kd,70.66,,,,\n")
    assert [sentence.split()[0] for sentence in check(out)] == [str(out / name) for name in ("README.md", "tables.tex")]
    regenerate(runs, out)
    text = (out / "README.md").read_text()
    assert "[published.csv](published.csv)" in text
    assert "| mine" in text
    assert check(out) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("source,dataset\n", "lacks the column teacher, student, method, top1, note"),
        (f"{HEAD}A,d,t,s,m,high,,,,\n", "line 2: top1 must be a number, not 'high'"),
        (f"{HEAD}A,d,t,s,m,,,,,\n", "line 2: top1 is missing"),
    ],
)
def test_a_damaged_file_is_a_sentence(tmp_path, content, sentence):
    (tmp_path / "published.csv").write_text(content)
    with pytest.raises(UserError, match=sentence):
        read(tmp_path / "published.csv")


def test_an_unknown_budget_is_compared_unless_ours_is_far_below_all_that_are_known(rows, values):
    unknown = "A,cifar100,resnet56,resnet20,kd,70.66,,,,"
    known = "B,cifar100,,resnet56,ce,72,,240,50000,"
    short = [row | {"images_seen": 45_000} for row in rows]
    for lines, runs, expected in (
        ([unknown, known], rows, True),
        ([unknown, known], short, False),
        ([unknown], short, True),
        ([unknown, known.replace("cifar100", "cifar10")], short, True),
    ):
        (pair,) = compare(summarise(runs), values(*lines))
        assert pair.same_budget is expected
    (pair,) = compare(summarise(short), values(unknown, known))
    text = markdown_section(section([pair], Span("here")))
    assert "or at one that is not known: kd" in text
    assert "(71.00 after 45.0k images, published 70.66 with an unknown budget: A)" in text


def test_the_values_that_come_with_kdbench():
    published = read(source(Path("nowhere")))
    assert len(published) > 1700
    assert len({(p.source, p.dataset, p.teacher, p.student, p.method, p.top1, p.note) for p in published}) == len(
        published
    )
    methods = {"fitnet_kd", "at_kd", "semckd", "wkd_f", "ls_kd", "ls_mlkd", "sdd_dkd", "kdpp", "dot", "ttm", "dist"}
    methods |= {
        "byot",
        "cs_kd",
        "ps_kd",
        "dks",
        "dml",
        "okddip",
        "hsakd",
        "hssakd",
        "tfkd_self",
        "ce_cutout",
        "ce_autoaugment",
    }
    assert methods <= {p.method for p in published}
    by_setting = {
        (p.source.split()[0], p.teacher, p.student, p.method): p for p in published if p.dataset == "cifar100"
    }
    crd = by_setting["RepDistiller", "resnet56", "resnet20", "crd"]
    assert (crd.top1, crd.budget, crd.epoch, crd.gain) == (71.16, 12e6, "last", False)
    bake = by_setting["Self-KD-Lib", "", "resnet18", "bake"]
    assert (bake.top1, bake.budget, bake.epoch) == (76.93, 40e6, "best"), (
        "200 epochs of N anchors with three partners each"
    )
    assert {p.epoch for p in published} == {"last", "best", ""}
    assert sum(p.gain for p in published) == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text.replace(",70.0,", ",1e999,"), "top1 must be a number, not '1e999'"),
        (lambda text: text.replace(",70.0,", ",nan,"), "top1 must be a number, not 'nan'"),
        (lambda text: text.replace("a paper", "\udcff"), "cannot be read"),
        (lambda text: text.replace("a paper", "x" * 2000), "cannot be read: field larger than field limit"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, change, sentence):
    path = tmp_path / "published.csv"
    text = "source,dataset,teacher,student,method,top1,note\na paper,digits,resnet20,resnet8,kd,70.0,\n"
    path.write_text(change(text), encoding="utf-8", errors="surrogateescape")
    limit = csv.field_size_limit(1000)
    try:
        with pytest.raises(UserError, match=sentence):
            read(path)
    finally:
        csv.field_size_limit(limit)
