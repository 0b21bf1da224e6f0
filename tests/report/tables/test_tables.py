from __future__ import annotations

import pytest

from kdbench.errors import UserError
from kdbench.plan.spec import EQUAL_TEACHER_SEED
from kdbench.report.stats.intervals import mean_interval
from kdbench.report.tables.cells import cells
from kdbench.report.tables.rows import with_values
from kdbench.report.tables.tables import summarise

SEEDS = (0, 1, 2)


def power(low, high):
    """Of an sd of 1: 10 and 34 as in tables of the one-sample t test; noncentrality 5.6535 with 2 degrees of freedom, over √3."""
    return (
        "power: n = 3 can detect differences from ce of 3.3 points (95 %, power 80 %, pooled sd 1.00, whose own 95 % interval "
        f"is {low:.2f} to {high:.2f}); 1 point needs 10, 0.5 points need 34 seeds"
    )


POWER = power(0.52, 6.28)
"""√(2 / 7.378) and √(2 / 0.0506), the 97.5 % and 2.5 % points of χ² with 2 degrees of freedom."""


def only(results):
    (table,) = summarise(results)
    return table


@pytest.fixture
def three(result):
    """ce at 50, 51, 52 and kd at 52, 54, 53: differences 2, 3, 1."""
    ce = [result("ce", seed, 50.0 + seed) for seed in SEEDS]
    kd = [result("kd", seed, accuracy, taught=True) for seed, accuracy in zip(SEEDS, (52.0, 54.0, 53.0), strict=True)]
    return ce + kd


def test_a_table_by_hand(three):
    table = only(three)
    assert table.title == "digits · cnn · recipe short · protocol 1f9c20"
    kd, ce = table.rows
    # t = 2/(1/√3) = 3.4641 with 2 degrees of freedom: p = 1 - √(12/14) = 0.0742, too much to tell the two apart
    assert (kd.rank, kd.p, kd.method, kd.teacher) == (1, pytest.approx(0.0742, abs=1e-4), "kd", "resnet20 (61.3)")
    assert (ce.rank, ce.p, ce.method, ce.teacher) == (1, None, "ce", "")
    # deviation 1 everywhere, t(2) = 4.302653, over the root of 3: 2.4841
    assert kd.accuracy == (3, 53.0, pytest.approx(2.4841, abs=1e-4))
    assert kd.difference == (3, 2.0, pytest.approx(2.4841, abs=1e-4))
    assert ce.accuracy == (3, 51.0, pytest.approx(2.4841, abs=1e-4))
    assert ce.difference is None
    assert kd.measured("images_seen") == (3, 14370, 0.0)
    assert kd.measured("accuracy.best_val") is None
    assert table.notes == [POWER]


def test_protocol_dataset_and_student_make_tables(result):
    results = [result(run=f"r{i}") for i in range(4)]
    for i, (key, value) in enumerate([("protocol", "0000"), ("dataset", "cifar100"), ("student", "big")]):
        results[i][key] = value
    assert [(t.dataset, t.student, t.protocol) for t in summarise(results)] == [
        ("cifar100", "cnn", "1f9c20"),
        ("digits", "big", "1f9c20"),
        ("digits", "cnn", "0000"),
        ("digits", "cnn", "1f9c20"),
    ]


def test_lines_are_sorted_by_mean_and_ranked_by_what_can_be_told_apart(result):
    accuracies = {
        "ce": (60.0, 60.2, 60.1),
        "kd": (60.3, 59.9, 60.4),
        "at": (50.0, 50.3, 50.1),
        "rkd": (70.0, 70.1, 70.1),
    }
    table = only([result(m, seed, a) for m, values in accuracies.items() for seed, a in enumerate(values)])
    assert [(row.rank, row.method) for row in table.rows] == [(1, "rkd"), (2, "kd"), (2, "ce"), (4, "at")]


def test_p_values_are_corrected_for_the_differences_of_the_table(three, result):
    alone = only(three).rows[0].p
    weak = [result("at", seed, 50.0 + seed + offset) for seed, offset in enumerate((1.0, -1.0, 0.3))]
    both = {row.method: row.p for row in only([*three, *weak, result("dkd", 0, 70.0)]).rows}
    assert both["kd"] == pytest.approx(2 * alone), "two differences have a test: one seed has none"
    assert both["at"] > both["kd"]
    assert (both["ce"], both["dkd"]) == (None, None)


def test_a_teacher_near_chance_is_noted_once_for_its_row(result):
    doubted = [result("kd", seed, 40.0 + seed, taught=True, teacher__doubt="the teacher w is odd") for seed in (0, 1)]
    (table,) = summarise([*doubted, result("ce", 0), result("ce", 1)])
    assert [note for note in table.notes if "odd" in note] == ["kd: the teacher w is odd"]


def test_equal_differences_give_no_p_value_and_say_so(result):
    table = only([result(m, seed, a + seed) for m, a in (("ce", 50.0), ("kd", 60.0)) for seed in SEEDS])
    assert [(row.method, row.rank, row.p) for row in table.rows] == [("kd", 1, None), ("ce", 2, None)]
    assert table.notes == ["no p value where all differences from ce are equal (kd)"]


def test_other_measures_are_told(result, three):
    given = {"measures__version": 1, "measures__images": 10000}
    old = [one | {"measures.version": 1, "measures.images": 10000} for one in three]
    at = [result("at", seed, 40.0 + seed**2, **given | {"measures__version": 2}) for seed in SEEDS]
    table = only([*old, *at, result("rkd", 0, 30.0)])
    assert {row.method: row.marks for row in table.rows} == {"kd": "", "ce": "", "at": "§", "rkd": ""}
    assert "§ not measured in the same way: measures.version 1 for kd, ce; 2 for at" in table.notes


def test_own_parameters_and_other_teachers_are_other_lines(result):
    table = only(
        [
            result("kd", taught=True),
            result("kd", run="warm", taught=True, method__parameters='{"KD.temperature": 2.0}'),
            result("kd", run="small", teacher="resnet14", teacher__sha256="a" * 64, teacher__accuracy=58.0),
        ]
    )
    assert {(row.method, row.teacher) for row in table.rows} == {
        ("kd", "resnet20 (61.3)"),
        ("kd (temperature=2)", "resnet20 (61.3)"),
        ("kd", "resnet14 (58.0)"),
    }


def test_weights_that_look_alike_are_told_apart(result):
    first = [result("kd", seed, taught=True) for seed in SEEDS]
    second = [result("kd", seed, taught=True, run=f"other{seed}", teacher__sha256="e" * 64) for seed in SEEDS]
    assert {row.teacher for row in only(first + second).rows} == {
        "resnet20 (61.3) cccccccc",
        "resnet20 (61.3) eeeeeeee",
    }


def from_file(result, method, name, weights, accuracy, seed=0):
    """A run that weights from outside taught, with no run that trained them."""
    facts = {"teacher": name, "teacher__sha256": weights * 64, "teacher__accuracy": accuracy}
    return result(method, seed, run=f"{method}{name}{weights}{seed}", **facts)


def test_files_of_one_name_and_other_weights_are_told_apart_in_all_rows(result):
    table = only([from_file(result, "kd", "t", "a", 61.3), from_file(result, "crd", "t", "b", 58.0)])
    assert {row.teacher for row in table.rows} == {"t (61.3) aaaaaaaa", "t (58.0) bbbbbbbb"}


def test_files_of_other_names_and_equal_weights_are_one_line(result):
    table = only([from_file(result, "kd", "b", "a", 61.3, seed=1), from_file(result, "kd", "a", "a", 61.3)])
    assert [(row.teacher, len(row.runs)) for row in table.rows] == [("a (61.3)", 2)]
    run = result("kd", 2, taught=True, teacher__run="ce-x", teacher__sha256="a" * 64)
    table = only([from_file(result, "kd", "b", "a", 61.26, seed=1), run])
    assert [(row.teacher, len(row.runs)) for row in table.rows] == [("resnet20 (61.3)", 2)]


def test_failed_lines_stand_last_with_their_reason(result, three):
    failed = result("at", 0, None, taught=True, status="failed", error="the loss is not finite")
    table = only([failed, *three])
    assert [row.rank for row in table.rows] == [1, 1, None]
    assert table.rows[-1].accuracy is None
    assert table.notes == ["failed: at, seed 0, run at0: the loss is not finite", POWER]


def test_a_failed_seed_is_seen_beside_finished_ones(result, three):
    # It failed before it could read its teacher, so that the checksum is missing.
    failed = result("kd", 3, None, teacher="resnet20", status="failed", error="no space left")
    table = only([*three, failed])
    kd = next(row for row in table.rows if row.method == "kd")
    assert kd.accuracy is not None
    assert (kd.accuracy.n, [row["run"] for row in kd.failed]) == (3, ["kd3"])
    assert table.notes == ["failed: kd, seed 3, run kd3: no space left", POWER]


def test_finished_without_an_accuracy_is_a_failure(result, three):
    for value in (None, float("nan")):
        table = only([*three, result("at", 0, value)])
        assert table.rows[-1].method == "at"
        assert "without an accuracy" in table.notes[0]


def test_the_newest_run_of_a_seed_counts(result):
    old = result("ce", 0, 40.0, run="z", provenance__finished_at="2025-01-01T00:00:00+00:00")
    new = result("ce", 0, 60.0, run="a", provenance__finished_at="2025-01-02T00:00:00+00:00")
    for results in ([old, new], [new, old]):
        table = only(results)
        assert table.rows[0].accuracy == (1, 60.0, None)
        assert any("a newer run of the same seed counts: z" in note for note in table.notes)


def test_one_seed_has_a_note_and_no_interval(result):
    table = only([result("ce"), result("kd", 0, 53.0)])
    assert [row.accuracy.half_width for row in table.rows if row.accuracy] == [None, None]
    assert table.rows[0].difference == (1, 3.0, None)
    assert table.notes == ["n = 1: no interval, no p value and no rank (kd, ce)"]


def test_differences_need_common_seeds_and_say_how_many(result):
    ce = [result("ce", seed, 50.0) for seed in (0, 1)]
    half = [result("kd", seed, 51.0) for seed in (1, 2)]
    none = [result("at", seed, 51.0) for seed in (5, 6)]
    table = only(ce + half + none)
    by_name = {row.method: row for row in table.rows}
    assert by_name["kd"].difference == (1, 1.0, None)
    assert by_name["at"].difference is None
    assert table.notes == ["kd: the difference is over the 1 of 2 seeds that ce has also finished"]


def test_without_the_baseline_there_are_no_differences(result):
    table = only([result("kd", seed) for seed in SEEDS])
    assert table.rows[0].difference is None
    assert any("no differences" in note for note in table.notes)


def test_unequal_conditions_are_told(result, three):
    results = three + [
        result("at", seed, provenance__clean=False, data__sha256="f" * 64, images_seen=20000, provenance__device="gpu")
        for seed in SEEDS
    ]
    table = only(results)
    marks = {row.method: row.marks for row in table.rows}
    assert marks == {"ce": "", "kd": "", "at": "†‡"}
    assert table.notes == [
        "† with uncommitted changes in the code",
        "‡ not the same data: data.sha256 dddddddd for kd, ce; ffffffff for at",
        "not the same budget: images seen 14370 for kd, ce; 20000 for at",
        "times come from different devices: cpu for kd, ce; gpu for at",
        power(0.60, 2.87),
    ]


def test_exits_and_best_on_validation_are_means(result):
    extra = [
        {"exits.exit10": 1.0, "exits.exit2": 58.0 + s, "exits.ensemble": 63.0, "accuracy.best_val": 60.0 + s}
        for s in SEEDS
    ]
    table = only([result("byot", seed) | extra[seed] for seed in SEEDS])
    assert list(table.rows[0].exits.items()) == [("exit2", 59.0), ("exit10", 1.0), ("ensemble", 63.0)]
    assert table.rows[0].measured("accuracy.best_val").mean == 61.0


def test_recipes_with_overrides_in_the_title(result):
    table = only([result("ce", overrides='{"Train.epochs": 1.0}'), result("kd", recipe="tiny")])
    assert table.recipe == "short (Train.epochs=1) or tiny"


@pytest.mark.parametrize(
    ("parameters", "label"),
    [
        ("", "kd"),
        ("{}", "kd"),
        ('{"KD.temperature": 2.0}', "kd (temperature=2)"),
        ('{"KD.temperature": 0.5, "KD.weights": [1.0, 0.25]}', "kd (temperature=0.5, weights=[1, 0.25])"),
        ('{"KD.b": true, "KD.a": "x"}', "kd (a=x, b=true)"),
        ('{"KD.weight": 1, "Head.weight": 2}', "kd (Head.weight=2, KD.weight=1)"),
        ('{"KD.a": "\\ud800"}', "kd (a=?)"),
        ("no json", "kd (no json)"),
        ("[1]", "kd ([1])"),
    ],
)
def test_labels(parameters, label):
    assert with_values("kd", parameters, short=True) == label


def test_many_seeds_keep_their_pairs(result):
    """Seeds are numbers: 10 comes after 9, and pairs are by number."""
    ce = [result("ce", seed, 50.0 + seed) for seed in range(12)]
    kd = [result("kd", seed, 51.0 + seed) for seed in reversed(range(12))]
    kd_line = only(ce + kd).rows[0]
    assert kd_line.difference == mean_interval([1.0] * 12)
    assert [row["seed"] for row in kd_line.runs] == [str(seed) for seed in range(12)]


def power_notes(results):
    return [note for note in only(results).notes if note.startswith("power")]


def test_power_pools_the_lines_by_their_degrees_of_freedom(result):
    ce = [result("ce", seed, 50.0) for seed in range(5)]
    few = [result("at", seed, 51.0 + change) for seed, change in enumerate((-2.0, 2.0))]  # variance 8, 1 degree
    many = [
        result("kd", seed, 51.0 + change) for seed, change in enumerate((-1.0, 1.0, 0.0, 1.0, -1.0))
    ]  # 1, 4 degrees
    # √((8 + 4) / 5) = 1.549; detectable 11.5500 sd with two seeds (16.334/√2), 1.682 sd with five (3.7611/√5)
    (note,) = power_notes(ce + few + many)
    assert "n = 2 to 5 can detect differences from ce of 17.9 to 2.6 points (95 %, power 80 %, pooled sd 1.55" in note


def test_power_needs_two_common_seeds_and_scatter(result):
    ce = [result("ce", seed, 50.0 + seed) for seed in SEEDS]
    assert power_notes(ce) == []
    assert power_notes([*ce, result("kd", 0, 53.0)]) == []
    assert power_notes([result("kd", seed, 50.0 + seed**2) for seed in SEEDS]) == []
    assert power_notes(ce + [result("kd", seed, 51.1 + seed) for seed in SEEDS]) == []
    (note,) = power_notes(ce + [result("kd", seed, 50.0 + 40 * seed) for seed in SEEDS])
    assert note.endswith("1 point needs over 1000, 0.5 points need over 1000 seeds")


def test_a_run_that_was_made_to_teach_its_equals_is_no_seed_of_the_baseline(three, result):
    teacher = result("ce", EQUAL_TEACHER_SEED, 10.0)
    with_teacher, without = only([*three, teacher]), only(three)
    assert [row.accuracy for row in with_teacher.rows] == [row.accuracy for row in without.rows]
    assert (
        f"ce: excluded, because trained as a teacher for students of the same architecture: {teacher['run']}"
        in with_teacher.notes
    )
    assert only([teacher]).rows[0].accuracy.mean == 10.0, "alone it is shown"
    user = result("kd", EQUAL_TEACHER_SEED, 10.0, taught=True)
    assert next(row for row in only([*three, user]).rows if row.method == "kd").accuracy.n == 4


def test_differences_from_another_method(three, result):
    more = [result("at", seed, 40.0 + seed**2) for seed in SEEDS]
    (table,) = summarise([*three, *more], "kd")
    assert table.baseline == "kd"
    by_method = {row.method: row for row in table.rows}
    assert by_method["kd"].difference is None
    assert by_method["ce"].difference == (3, -2.0, pytest.approx(2.4841, abs=1e-4))
    assert any("can detect differences from kd of" in note for note in table.notes)
    with pytest.raises(UserError, match=r"unknown baseline 'att'; did you mean 'at'\?"):
        summarise([*three, *more], "att")
    tuned = result("dkd", method__parameters='{"DKD.alpha": 2.0}')
    with pytest.raises(UserError, match="unknown baseline 'dkd'"):
        summarise([*three, tuned], "dkd")


def test_a_baseline_with_several_teachers_gives_no_differences(three, result):
    second = [result("kd", seed, 50.0, run=f"x{seed}", teacher="big", teacher__sha256="b" * 64) for seed in SEEDS]
    (table,) = summarise([*three, *second], "kd")
    assert all(row.difference is None for row in table.rows)
    assert "no differences: kd has several teachers" in table.notes


def test_equal_weights_are_one_teacher_and_others_are_told_apart_between_methods(result):
    kd = [result("kd", seed, taught=True) for seed in (0, 1)]
    renamed = result("kd", 2, taught=True) | {"teacher": "copy_of_resnet20"}
    (row,) = only([*kd, renamed]).rows
    assert (row.accuracy.n, row.teacher) == (3, "copy_of_resnet20 (61.3)")
    rkd = [result("rkd", seed, taught=True) | {"teacher.sha256": "e" * 64} for seed in (0, 1)]
    assert {row.name for row in only([*kd, *rkd]).rows} == {
        "kd, teacher resnet20 (61.3) cccccccc",
        "rkd, teacher resnet20 (61.3) eeeeeeee",
    }


def test_times_that_do_not_compare_are_marked_and_not_shown_by_default(three):
    three[0]["seconds.train"] = 25.1
    table = only(three)
    assert {row.method: row.marks for row in table.rows} == {"ce": "¶", "kd": ""}
    assert any(
        note.startswith("¶ training times of the seeds differ by more than a factor of 2") for note in table.notes
    )
    assert [column.header for column in cells(table)][-1] == "Images"
    (seconds,) = [column for column in cells(table, ["train_seconds"]) if column.header == "Train s"]
    assert seconds.texts == ["12.5", "16.7"]
    three[0]["seconds.train"] = 25.0
    assert not any(row.marks for row in only(three).rows)


def test_machines_that_differ_are_told(three):
    for record, threads, load in zip(three, (1, 1, 1, 2, 2, 2), (None, 0.2, 1.5, 0.0, 0.0, 0.0), strict=True):
        record |= {"provenance.threads": threads, "provenance.load": load}
    three[0]["provenance.instructions"] = "AVX2"
    assert [note for note in only(three).notes if note.startswith("times")] == [
        "times come from different numbers of threads: 1 for ce; 2 for kd",
    ]
    for record, runs in zip(three, (1, 1, 1, 2, 2, 2), strict=True):
        record |= {"provenance.threads": 1, "provenance.runs_per_gpu": runs}
    assert [note for note in only(three).notes if note.startswith("times")] == [
        "times come from different numbers of runs on a GPU: 1 for ce; 2 for kd",
    ]


@pytest.mark.parametrize(
    ("load", "cores", "lacking"),
    [(1.5, 2, 0.5), (1.5, 8, None), (0.4, 1, None), (1.5, None, 1.5), (None, 1, None), (0.9, 1, 0.9)],
)
def test_times_of_runs_that_lacked_cores_are_not_shown_by_default(three, load, cores, lacking):
    three[2] |= {"provenance.threads": 1, "provenance.load": load, "provenance.cores": cores}
    table = only(three)
    notes = [note for note in table.notes if note.startswith("other processes")]
    assert [note.rpartition(": ")[2] for note in notes] == ([f"ce {lacking})"] if lacking else [])
    assert ("Train s" in [column.header for column in cells(table)]) is (lacking is None)
    assert "Train s" in [column.header for column in cells(table, ["train_seconds"])]


@pytest.mark.parametrize("read", [0, 300])
def test_times_of_runs_that_read_their_teachers_outputs_are_not_shown_by_default(three, read):
    three[2]["passes.teachers_read"] = read
    table = only(three)
    assert len([note for note in table.notes if note.startswith("some runs read a teacher's outputs")]) == (read > 0)
    assert ("Train s" in [column.header for column in cells(table)]) is (read == 0)
    assert "Train s" in [column.header for column in cells(table, ["train_seconds"])]


def test_an_installed_kdbench_is_named_by_its_version(result):
    (row,) = only([result("ce", 0, provenance__kdbench="0.4.0", provenance__commits="None None")]).rows
    assert (row.commits, row.releases) == ([], ["kdbench 0.4.0"])
    (row,) = only([result("ce", 0, provenance__kdbench="0.4.0", provenance__commit="abc")]).rows
    assert (row.commits, row.releases) == (["abc"], [])
