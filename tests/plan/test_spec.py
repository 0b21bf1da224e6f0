import json
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.errors import UserError
from kdbench.plan import expand, request
from kdbench.plan.spec import LONGEST_NAME, Spec, check_run_name, is_run_name

GOOD = ["kd-digits-resnet8-s0-0123456789", "a", "7.b_c-D", "x" * LONGEST_NAME]
BAD = [
    *(
        "",
        ".",
        "..",
        ".hidden",
        "-rf",
        "../kd",
        "a/b",
        "/etc",
        "a\\b",
        "a b",
        "a\n",
        "a\0",
        "~",
        "\u202ea",
        "é",
        "x" * (LONGEST_NAME + 1),
    ),
    *(None, 3, ["a"], b"a"),
]


@pytest.fixture(scope="module")
def kd():
    specs = expand.plan(request.parse(["methods=kd", "dataset=digits", "KD.temperature=2", "Train.epochs=3"]))
    return next(spec for spec in specs if not spec.is_teacher)


def stored(spec, **changes):
    return json.loads(json.dumps(spec.plain())) | changes


@pytest.mark.parametrize("name", GOOD)
def test_a_name_that_a_run_can_have(name):
    assert is_run_name(name)
    check_run_name(name)


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_no_run_can_have(name):
    assert not is_run_name(name)
    with pytest.raises(UserError, match="cannot be the name of a run") as caught:
        check_run_name(name)
    assert str(caught.value).isprintable()


@given(name=st.text())
def test_every_name_of_a_run_is_that_of_one_folder_in_the_folder_of_runs(name):
    if is_run_name(name):
        assert (Path("runs") / name).parts == ("runs", name)
        assert len(name.encode()) < 255


def test_a_spec_comes_back_from_its_file(kd):
    assert Spec.from_plain(stored(kd)) == kd


def test_a_spec_of_a_kdbench_with_one_teacher_comes_back(kd):
    plain = stored(kd)
    (run,) = plain.pop("teacher_runs")
    for key in ("teacher_folders", "teacher_word"):
        del plain[key]
    assert Spec.from_plain({**plain, "teacher_run": run, "teacher_selected": False}).teacher_runs == (run,)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"id": "../kd"}, "'../kd' cannot be the name of a run"),
        ({"teacher_runs": ["../kd"]}, "'../kd' cannot be the name of a run"),
        ({"teacher_runs": [["a"]]}, "its 'teacher_runs' cannot be [['a']]"),
        ({"teacher_runs": "ab"}, "its 'teacher_runs' cannot be 'ab'"),
        ({"teacher_folders": {"other": "/home/me"}}, "records a folder that is not that of one of its teachers"),
        ({"method": "kd\ninclude 'x'"}, "cannot be a name"),
        ({"source": "../kd"}, "'../kd' in the run"),
        ({"teacher_word": "a\nb"}, "has characters that cannot be printed"),
        ({"overrides": {"Train.epochs\ninclude 'x'": 1}}, "which is not a value of a parameter"),
        ({"overrides": {"Train.epochs": float("inf")}}, "which is not a value of a parameter"),
        ({"seed": "0"}, "its 'seed' cannot be '0'"),
        ({"seed": True}, "its 'seed' cannot be True"),
        ({"gpus": 10**40}, "its 'gpus' cannot be 1000"),
        ({"overrides": []}, "its 'overrides' cannot be []"),
        ({"teacher": ["a"]}, "its 'teacher' cannot be ['a']"),
        ({"method": 3}, "its 'method' cannot be 3"),
        ({"teacher_folders": {"a": 1}}, "its 'teacher_folders' cannot be {'a': 1}"),
        ({"is_teacher": 1}, "its 'is_teacher' cannot be 1"),
        ({"config": "import os\n"}, "it holds more than bindings"),
        ({"color": "red"}, "the stored run has 'color', which this version of kdbench does not have"),
    ],
)
def test_a_spec_that_kdbench_did_not_write_is_one_sentence(kd, changes, sentence):
    with pytest.raises(UserError) as caught:
        Spec.from_plain(stored(kd, **changes))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["id", "config", "teacher_runs", "gpus"])
def test_a_spec_that_lacks_something_is_one_sentence(kd, key):
    plain = stored(kd)
    del plain[key]
    with pytest.raises(UserError, match=f"it lacks its '{key}'"):
        Spec.from_plain(plain)


@pytest.mark.parametrize("plain", [{}, {"id": "a"}, {"teacher_run": "a"}])
def test_a_file_with_hardly_anything_in_it_is_one_sentence(plain):
    with pytest.raises(UserError, match="it lacks its '"):
        Spec.from_plain(plain)


def test_the_configuration_of_a_spec_is_written_anew(kd):
    text = f"# import os\n{kd.config}# include '/etc/passwd'\nGone.notes = '''\nimport os\n'''\n"
    spec = Spec.from_plain(stored(kd, config=text))
    assert not any(line.startswith(("import", "include", "# import", "# include")) for line in spec.config.splitlines())
    assert "Gone.notes = '\\nimport os\\n'" in spec.config


@given(
    teacher=st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1).filter(str.isprintable),
    notes=st.text(max_size=12),
)
def test_a_command_is_words_that_a_shell_reads_back(kd, teacher, notes):
    spec = Spec(**{**kd.__dict__, "teacher_word": teacher, "own_overrides": {"KD.notes": notes, "KD.sizes": [1, 2.5]}})
    command = spec.command()
    assert command.isprintable()
    words = dict(word.split("=", 1) for word in shlex.split(command)[2:])
    assert words["teacher"] == teacher
    from kdbench.config.syntax import value_in

    assert value_in(words["KD.notes"]) == notes
    assert value_in(words["KD.sizes"]) == (1, 2.5)


def test_commands_look_as_they_did(kd):
    assert kd.command() == (
        "kdbench run methods=kd dataset=digits student=resnet8 teacher=resnet20 recipe=quick seeds=0 Train.epochs=3.0 "
        "KD.temperature=2.0"
    )
    spec = Spec(**{**kd.__dict__, "teacher_word": "my dir/t 1.pt", "overrides": {"Train.schedule": "@MultiStep()"}})
    assert "teacher='my dir/t 1.pt' recipe=quick seeds=0 Train.schedule='@MultiStep()' " in spec.command()
    assert " seeds=1,2 " in spec.command("1,2")
