from __future__ import annotations

import pytest

from kdbench.cli.main import main
from kdbench.errors import UserError
from kdbench.report.formats.markdown import markdown
from kdbench.report.request import parse
from kdbench.report.tables.columns import DEFAULT, every, find, shown
from kdbench.report.tables.tables import summarise

SEEDS = (0, 1, 2)


def cells(results, *names):
    """The cells of each line under the columns, by the line's name."""
    (table,) = summarise(results)
    return {row.name: [column.text(row) for column in shown(names or None, table.rows)] for row in table.rows}


@pytest.fixture
def measured(result):
    """ce and kd with all that a run can store, each seed a little more."""

    def values(s):
        return {
            **{"accuracy.top5": 80.0 + s, "calibration.ece": 5.0 + s, "calibration.nll": 1.5 + s / 10},
            **{"robustness.noise.0.1": 30.0 + s, "robustness.corruptions": 25.0 + s, "robustness.severity.5": 10.0},
            **{"robustness.corruption.fog": 20.0, "convergence.auc": 40.0, "convergence.images.50": 7_000_000},
            **{"cost.flops": 81_637_888, "cost.peak_memory_bytes": 1_807_142_912, "cost.energy_joules": 12_345.0},
            **{"cost.parameters": 278_324, "seconds.evaluate": 0.0},
        }

    ce = [result("ce", seed, 50.0 + seed) | values(seed) for seed in SEEDS]
    kd = [
        result("kd", seed, 52.0 + seed**2, taught=True) | values(seed) | {"teacher.agreement": 70.0} for seed in SEEDS
    ]
    return ce + kd


def test_every_column_by_its_name(measured):
    names = ["top5", "ece", "nll", "noise.0.1", "corruptions", "severity.5", "corruption.fog", "auc", "agreement"]
    assert cells(measured, *names)["ce"] == [
        *("81.00 ± 2.48", "6.00 ± 2.48", "1.600 ± 0.248", "31.00 ± 2.48", "26.00 ± 2.48"),
        *("10.00 ± 0.00", "20.00 ± 0.00", "40.00 ± 0.00", "–"),
    ]
    assert cells(measured, "agreement")["kd, teacher resnet20 (61.3)"] == ["70.00 ± 0.00"]
    names = ["images_to.50", "flops", "memory", "energy", "parameters", "evaluate_seconds", "train_seconds"]
    assert cells(measured, *names)["ce"] == ["7.00M", "81.6M", "1.68", "12.3", "278k", "0.0", "12.5"]


def test_what_older_runs_lack_is_called_so(measured, result):
    old = [result("at", seed, 40.0) for seed in SEEDS]
    failed = [result("dkd", 0, None, status="failed", error="boom")]
    texts = cells([*measured, *old, *failed], "ece", "p", "best_val", "agreement", "energy")
    assert texts["at"][:1] + texts["at"][2:] == ["not measured", "–", "–", "not measured"]
    assert texts["dkd"] == ["failed", "–", "failed", "failed", "failed"]


def test_a_mean_over_fewer_seeds_says_over_how_many(measured):
    del measured[0]["calibration.ece"]
    assert cells(measured, "ece")["ce"] == ["6.50 ± 6.35 (n = 2)"]


def test_passes_and_peers_are_columns_where_rows_differ(result):
    def row(name, passes, peers):
        return [result(name, seed) | {"passes.per_anchor": passes, "passes.peers": peers} for seed in SEEDS]

    def titles(rows):
        (table,) = summarise(rows)
        return [column.title for column in shown(None, table.rows)]

    alike = [*row("ce", 1, 0), *row("byot", 1, 0)]
    assert not {"Passes", "Peer images"} & set(titles(alike))
    assert titles([*alike, *row("sla_sd", 4, 0)])[-3:] == ["Passes", "Train s", "Images/s"]
    several = [*alike, *row("dml", 1, 14370), *row("sla_sd", 4, 0), *[result("old", seed) for seed in SEEDS]]
    assert titles(several)[-4:-2] == ["Passes", "Peer images"]
    texts = cells(several, "passes", "peer_images")
    assert (texts["ce"], texts["dml"], texts["sla_sd"]) == (["1", "0"], ["1", "14.4k"], ["4", "0"])
    assert texts["old"] == ["–", "not measured"], "runs from before the key have none"


def curve(highest, **reached):
    """What a result tells of a validation curve."""
    told = {"convergence.auc": 30.0, "convergence.highest": highest, "accuracy.val": highest}
    return told | {f"convergence.images.{wanted}": images for wanted, images in reached.items()}


def test_never_reached_is_not_the_same_as_not_measured(result, capsys):
    curves = {
        "all": [curve(61.0, **{"60": 45_000}), curve(62.0, **{"60": 55_000}), curve(63.0, **{"60": 50_000})],
        "some": [curve(59.0, **{"60": None}), curve(62.0, **{"60": 45_000}), curve(58.0, **{"60": None})],
        "none": [curve(50.0, **{"60": None})] * 3,
        "unasked": [curve(70.0)] * 3,
        "unsplit": [curve(None) | {"convergence.auc": None}] * 3,
        "older": [{}] * 3,
        "mixed": [curve(62.0, **{"60": 45_000}), curve(59.0), {}],
        "fewer": [curve(50.0), {}, curve(51.0)],
    }
    made = [result(name, seed) | told for name, seeds in curves.items() for seed, told in enumerate(seeds)]
    made.append(result("dkd", 0, None, status="failed", error="boom"))
    assert cells(made, "images_to.60") == {
        **{"all": ["50.0k"], "some": ["45.0k (1 of 3 reached it)"], "none": ["never"]},
        **{"unasked": ["not measured"], "unsplit": ["not measured"], "older": ["not measured"]},
        **{"mixed": ["45.0k (1 of 2 reached it)"], "fewer": ["never (n = 2)"], "dkd": ["failed"]},
    }
    assert cells(made, "images_to.75")["unasked"] == ["never"], "whoever was asked for it, the curve was below"


def test_a_board_where_nobody_reached_it_has_measured_it(result, store, tmp_path, capsys):
    runs = store(result("ce") | curve(50.0))
    out = str(tmp_path / "board")
    assert main(["leaderboard", "columns=images_to.60,images_to.40", "--runs", str(runs), "--out", out]) == 0
    assert "no run has measured images_to.40\n" in capsys.readouterr().err
    assert " never |" in (tmp_path / "board" / "README.md").read_text()


def test_the_difference_in_any_column_is_paired_by_seed_and_corrected_like_that_in_accuracy(measured, result):
    # Hand-computed. NLL, kd minus ce by seed: 0.1, 0.2, 0.3, so 0.2 ± 4.3027 · 0.1/√3; t = 2√3 with 2 degrees of freedom.
    for s in SEEDS:
        measured[3 + s]["calibration.nll"] += (s + 1) / 10
        measured[3 + s]["cost.energy_joules"] -= 2000.0 + s
    names = ["delta.nll", "p.nll", "delta.energy", "delta.flops", "delta.accuracy"]
    texts = cells(measured, *names)
    kd = "kd, teacher resnet20 (61.3)"
    assert texts[kd] == ["+0.200 ± 0.248", "0.074", "-2.0 ± 0.0", "0 ± 0", cells(measured, "delta")[kd][0]]
    assert texts["ce"] == ["–"] * 5
    more = [result("at", seed, 40.0) | {"calibration.nll": 1.5 + seed / 5} for seed in SEEDS]
    del measured[3]["calibration.nll"]
    assert cells([*measured, *more], "p.nll")[kd] == ["0.251"], (
        "1 - 2 atan(5)/π of seeds 1 and 2 alone, twice because of two tests"
    )
    assert cells(measured, "delta.nll")[kd] == ["+0.250 ± 0.635 (n = 2)"]


def test_differences_in_large_numbers_have_a_sign_and_a_prefix(measured):
    for s in SEEDS:
        measured[3 + s]["cost.flops"] -= 10_000_000
        measured[3 + s]["images_seen"] += 20_000
    assert cells(measured, "delta.flops", "delta.images")["kd, teacher resnet20 (61.3)"] == [
        "-10.0M ± 0",
        "+20.0k ± 0",
    ]


def test_the_default_set_leaves_out_what_no_line_has_and_a_wish_stays(result):
    made = summarise([result("ce", seed, 50.0 + seed) for seed in SEEDS])[0]
    assert [column.name for column in shown(None, made.rows)] == [
        "accuracy", "images", "train_seconds", "images_per_second",
    ]  # fmt: skip
    assert "| not measured |" in markdown(made, ["ece"])


def test_what_the_test_set_chose_is_shown_whatever_is_asked_for(result):
    made = summarise([result("ce", selected_on_test=True, accuracy__best_test=51.0)])[0]
    assert [column.name for column in shown(["ece"], made.rows)] == ["ece", "best_test"]
    assert "TEST SET USED TO SELECT" in markdown(made, ["ece"])


def test_p_values_have_three_digits_or_a_bound(result):
    ce = [result("ce", seed, 50.0 + seed) for seed in SEEDS]
    far = [result("kd", seed, 90.0 + seed + seed / 100) for seed in SEEDS]
    assert cells(ce + far, "p") == {"kd": ["<0.001"], "ce": ["–"]}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["columns=acuracy"], "unknown column 'acuracy'; did you mean 'accuracy'? See all with: kdbench list columns"),
        (["columns=noise."], "the column 'noise.' needs a suffix in place of *. See: kdbench list columns"),
        (["columns=noise.*"], "the column 'noise.*' needs a suffix"),
        (["columns="], "'columns=' has no value"),
        (["columns=delta.corruption."], "the column 'corruption.' needs a suffix"),
        (["columns=p.eec"], "unknown column 'eec'; did you mean 'ece'?"),
        (["columns=p.images_to.50"], "'p.images_to.50' would drop the seeds that never reached this accuracy"),
        (["columns=delta.p"], "the column 'delta.p' cannot be compared: 'p' is itself derived"),
        (["column=ece"], "unknown selection 'column'; did you mean 'columns'?"),
        (["methods=ce"], "columns=accuracy,delta."),
        (["columns=ece", "columns=nll"], "'columns' is given twice"),
    ],
)
def test_wrong_columns_are_answered_in_one_sentence(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard", *words]) == 2
    (row,) = capsys.readouterr().err.splitlines()
    assert sentence in row
    assert list(tmp_path.iterdir()) == []


def test_names_are_unique_and_the_default_set_exists():
    names = [column.name for column in every()]
    assert len(set(names)) == len(names)
    assert [find(name).name for name in DEFAULT] == list(DEFAULT)
    assert parse(["columns=ece,p,ece"]).columns == ("ece", "p")
    with pytest.raises(UserError):
        find("*")


def test_list_columns_names_all(capsys):
    assert main(["list", "columns"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{column.name} " in f"\n{out}" for column in every())
