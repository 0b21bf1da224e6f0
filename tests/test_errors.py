from kdbench.errors import nearest, unknown


def test_nearest_ignores_case_and_gives_up_on_strangers():
    assert nearest("crosd", ["corsd", "crd"]) == "corsd"
    assert nearest("kd", ["KD", "RKD"]) == "KD"
    assert nearest("zebra", ["kd", "rkd"]) is None


def test_unknown_names_the_word_the_guess_and_where_to_see_all():
    text = str(unknown("method", "cosrd", ["corsd", "kd"], "kdbench list methods"))
    assert text == "unknown method 'cosrd'; did you mean 'corsd'? See all with: kdbench list methods"


def test_unknown_lists_all_when_nothing_is_near_and_there_is_nowhere_to_look():
    assert str(unknown("executor", "zebra", ["slurm", "inline"])) == "unknown executor 'zebra'; valid: inline, slurm"
