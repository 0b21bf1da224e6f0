import gc

import pytest

from kdbench.errors import hint, loading_torch, nearest, unknown


def test_nearest_ignores_case_and_gives_up_on_strangers():
    assert nearest("crosd", ["corsd", "crd"]) == "corsd"
    assert nearest("kd", ["KD", "RKD"]) == "KD"
    assert nearest("zebra", ["kd", "rkd"]) is None


def test_unknown_names_the_word_the_guess_and_where_to_see_all():
    many = ["corsd", *(f"m{number}" for number in range(8))]
    text = str(unknown("method", "cosrd", many, "kdbench list methods"))
    assert text == "unknown method 'cosrd'; did you mean 'corsd'? See all with: kdbench list methods"
    assert str(unknown("method", "zzz", many, "kdbench list methods")) == (
        "unknown method 'zzz'; see all with: kdbench list methods"
    )


def test_unknown_lists_up_to_eight_words_itself():
    few = ["corsd", *(f"m{number}" for number in range(7))]
    text = str(unknown("method", "zzz", few, "kdbench list methods"))
    assert text == "unknown method 'zzz'; valid: corsd, m0, m1, m2, m3, m4, m5, m6"
    assert str(unknown("state", "runing", ["running", "done"])) == (
        "unknown state 'runing'; did you mean 'running'? Valid: done, running"
    )
    assert str(unknown("cluster", "defalt", ["default"], "see")) == "unknown cluster 'defalt'; did you mean 'default'?"
    assert str(unknown("macro", "x", [])) == "unknown macro 'x'"


def test_after_a_semicolon_there_is_no_capital():
    assert hint(None) == ""
    assert hint(None, "see all with: x") == "; see all with: x"
    assert hint("a", "see all with: x") == "; did you mean 'a'? See all with: x"


def test_unknown_lists_all_when_nothing_is_near_and_there_is_nowhere_to_look():
    assert str(unknown("executor", "zebra", ["slurm", "inline"])) == "unknown executor 'zebra'; valid: inline, slurm"


@pytest.mark.parametrize("on", [True, False])
def test_the_garbage_collector_pauses_while_torch_is_imported_and_is_then_as_before(on):
    (gc.enable if on else gc.disable)()
    try:
        with loading_torch():
            assert not gc.isenabled()
        assert gc.isenabled() == on
    finally:
        gc.enable()
