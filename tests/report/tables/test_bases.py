import pytest

from kdbench.report.tables.tables import summarise

SEEDS = (0, 1, 2)
HEAD = "differences from the method that each changes, paired by seed: "


@pytest.fixture
def table(result):
    """Makes the table of methods with their accuracies, one for each seed; `teachers` names those that are taught."""

    def make(baseline="ce", teachers=(), **accuracies):
        results = []
        for method, values in accuracies.items():
            for seed, value in zip(SEEDS, values, strict=False):
                results.append(result(method, seed, value, taught=method in teachers))
        (made,) = summarise(results, baseline)
        return made

    return make


def notes(made):
    return [note.removeprefix(HEAD) for note in made.notes if note.startswith(HEAD)]


def test_variants_and_methods_with_the_entry_are_compared_with_their_bases(table):
    made = table(
        ce=(50, 51, 52), kd=(52, 54, 53), ls_kd=(54, 57, 54), dkd=(50, 50, 50), ls_dkd=(50, 49, 48), rkd=(60, 60, 60)
    )
    # differences 2, 3, 1 and 0, -1, -2: deviation 1, half-width 2.4841; t = 2·√3 and -√3: p = 0.0742 and 0.2254, Holm: 0.148
    assert notes(made) == [
        "ls_kd minus kd +2.00 ± 2.48 (p 0.148), ls_dkd minus dkd -1.00 ± 2.48 (p 0.225); p Holm-corrected over these 2"
    ]


def test_one_difference_has_no_correction_and_one_seed_no_interval(table):
    assert notes(table(kd=(52, 54, 53), ls_kd=(54, 57, 54))) == ["ls_kd minus kd +2.00 ± 2.48 (p 0.074)"]
    assert notes(table(kd=(52,), ls_kd=(51.5,))) == ["ls_kd minus kd -0.50"]
    assert notes(table(kd=(52,), ls_kd=(52,))) == ["ls_kd minus kd +0.00"]


@pytest.mark.parametrize(
    ("accuracies", "baseline"),
    [
        ({"ce": (50, 51), "ls_kd": (52, 53)}, "ce"),  # no base in the table
        ({"ce": (50, 51), "ce_smooth": (52, 53)}, "ce"),  # the columns have it
        ({"kd": (50, 51), "ls_kd": (52, 53)}, "kd"),
        ({"kd": (50, None), "ls_kd": (None, 53)}, "ce"),  # no seed in common
        ({"kd": (50, 51), "theirs_kd": (52, 53)}, "ce"),  # a method that is not there
    ],
)
def test_no_note_without_a_difference_that_the_table_lacks(table, accuracies, baseline):
    assert notes(table(baseline, **accuracies)) == []


def test_values_of_its_own_and_several_teachers_are_left_out(result):
    runs = [result("kd", seed, 50 + seed, taught=True) for seed in SEEDS]
    variant = [result("ls_kd", seed, 51 + seed, taught=True) for seed in SEEDS]
    own = {"method__parameters": '{"LSKD.temperature": 3.0}'}
    tuned = [result("ls_kd", seed, 55, taught=True, **own) for seed in SEEDS]
    (made,) = summarise(runs + variant + tuned)
    (sentence,) = notes(made)
    assert sentence.startswith("ls_kd minus kd +1.00")
    assert "temperature" not in sentence
    other = {"teacher": "resnet32", "teacher__sha256": "e" * 64, "teacher__run": "t2"}
    second = [result("kd", seed, 60 + seed, taught=True, **other) for seed in SEEDS]
    (made,) = summarise(runs + second + variant)
    assert [sentence.count("+1.00") for sentence in notes(made)] == [1], "the base with the same teacher"
    third = [result("ls_kd", seed, 60, **{"teacher": "vgg8", "teacher__sha256": "f" * 64}) for seed in SEEDS]
    (made,) = summarise(runs + second + third)
    assert notes(made) == []
