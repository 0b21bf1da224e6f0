"""What the seeds of each table can show, as data."""

from __future__ import annotations

import pytest

from kdbench.errors import UserError
from kdbench.report import detectable
from kdbench.report.leaderboard import regenerate

SEEDS = (0, 1, 2)


@pytest.fixture
def three(result):
    """Differences from ce of 2, 3, 1 (kd, sd 1), of 1, 1.5, 2 (rkd, sd ½), and crd with one seed."""
    ce = [result("ce", seed, 50.0 + seed) for seed in SEEDS]
    kd = [result("kd", seed, accuracy) for seed, accuracy in zip(SEEDS, (52.0, 54.0, 53.0), strict=True)]
    rkd = [result("rkd", seed, accuracy) for seed, accuracy in zip(SEEDS, (51.0, 52.5, 54.0), strict=True)]
    return [*ce, *kd, *rkd, result("crd", 0, 53.0)]


def test_each_line_the_pooled_one_and_the_reasons(three, store, capsys):
    ((table,), messages) = detectable.read(store(*three), differences=[0.5, 1e-3])
    assert messages == []
    assert table.title == "digits · cnn · recipe short · protocol 1f9c20"
    kd, rkd = sorted(table.lines, key=lambda line: line.line)
    assert (kd.line, kd.n, kd.seeds_needed) == ("kd", 3, {0.5: 34, 1e-3: None})
    # t(2) = 4.302653 and noncentrality 5.653489, both over √3
    assert (kd.sd, kd.shows, kd.detects) == pytest.approx((1, 4.302653 / 3**0.5, 5.653489 / 3**0.5))
    assert rkd.sd == pytest.approx(0.5)
    assert table.pooled.line == "all lines"
    assert table.pooled.sd == pytest.approx((1.25 / 2) ** 0.5)
    assert table.reasons == ("crd has only one seed in common with ce; the sd of differences needs at least two",)
    assert capsys.readouterr().out == ""


def test_one_line_is_not_pooled_and_lines_with_different_n_have_no_thresholds(three, store, tmp_path):
    kd_only = [row for row in three if row["method"] in ("ce", "kd")]
    ((table,), _) = detectable.read(store(*kd_only))
    assert table.pooled is None
    ((table,), _) = detectable.read(store(*(row for row in three if row["run"] != "rkd2")))
    assert (table.pooled.n, table.pooled.shows, table.pooled.detects) == (None, None, None)


def test_committed_rows_give_the_same(three, store, tmp_path):
    runs = store(*three)
    regenerate(runs, tmp_path / "board")
    assert detectable.read(tmp_path / "nowhere", tmp_path / "board") == detectable.read(runs)


def test_without_results_or_leaderboard(tmp_path):
    with pytest.raises(UserError, match="there are no results in"):
        detectable.read(tmp_path / "runs")
    with pytest.raises(UserError, match=r"results.csv does not exist; create it with: kdbench leaderboard"):
        detectable.read(tmp_path / "runs", tmp_path / "board")
