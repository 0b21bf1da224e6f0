from pathlib import Path

import pytest

from kdbench.config import places
from kdbench.errors import UserError
from kdbench.plan import expand, request
from kdbench.plan.spec import Spec, TeacherRun
from kdbench.plan.teachers import assistants

PLUGIN = Path(__file__).parents[1] / "teaching"


@pytest.fixture(autouse=True)
def plugin(own_plugins):
    places.add_plugins([str(PLUGIN)])


def specs(*words, find_run=None):
    return expand.plan(request.parse([*words, *([] if "dataset=digits" in words else ["dataset=digits"])]), find_run)


def names(found):
    return [(spec.method, spec.student, spec.seed, spec.is_teacher) for spec in found]


@pytest.mark.parametrize(
    ("teacher", "student", "between"),
    [
        ("resnet32", "resnet8", ("resnet20", "resnet14")),
        ("resnet20", "resnet8", ("resnet14",)),
        ("resnet32", "resnet14", ("resnet20",)),
        ("resnet20", "resnet14", ()),
        ("resnet14", "resnet20", ()),
        ("resnet8", "resnet8", ()),
        (None, "resnet8", ("resnet20", "resnet14")),
    ],
)
def test_the_assistants_are_those_between_teacher_and_student(teacher, student, between):
    assert assistants(("resnet20", "resnet14"), teacher, student) == between


def test_in_a_chain_each_is_taught_by_the_one_before_it():
    teacher, first, second, student = specs("methods=kd_chain", "teacher=resnet32", "student=resnet8", "seeds=3")
    assert names([teacher, first, second, student]) == [
        ("ce", "resnet32", 0, True),
        ("kd_chain", "resnet20", 0, True),
        ("kd_chain", "resnet14", 0, True),
        ("kd_chain", "resnet8", 3, False),
    ]
    assert [s.teacher_runs for s in (teacher, first, second, student)] == [(), (teacher.id,), (first.id,), (second.id,)]
    assert (first.teacher, student.teacher) == ("resnet32", "resnet14 kd_chain")


def test_all_above_teach_where_the_method_asks_for_it():
    teacher, first, second, student = specs("methods=dense", "teacher=resnet32", "student=resnet8")
    assert second.teacher_runs == (teacher.id, first.id)
    assert student.teacher_runs == (teacher.id, first.id, second.id)
    assert student.teacher == "resnet32+resnet20 dense+resnet14 dense"


@pytest.mark.parametrize("method", ["kd_chain", "dense", "kd_early", "route"])
def test_the_command_of_every_run_of_a_chain_makes_that_run(method):
    for spec in specs(f"methods={method}", "teacher=resnet32", "student=resnet8", "seeds=1", "Train.epochs=7"):
        assert spec in specs(*spec.command().split()[2:])


def test_each_run_is_planned_once_and_teachers_come_before_those_that_they_teach():
    found = specs("methods=kd_chain,kd,ce", "teacher=resnet32", "student=resnet20,resnet8,resnet14", "seeds=0,1")
    place = {spec.id: number for number, spec in enumerate(found)}
    assert len(place) == len(found)
    assert all(place[run] < place[spec.id] for spec in found for run in spec.teacher_runs)
    asked = [spec for spec in found if spec.method == "kd_chain" and not spec.is_teacher]
    assert len(asked) == 6, "the assistants were asked for themselves"
    assert not [spec for spec in found if spec.method == "kd_chain" and spec.is_teacher]


def test_a_teacher_cut_short_or_with_states_is_a_run_of_another_method_and_its_students_are_others():
    plain, short, states = (specs(f"methods={method}")[0] for method in ("kd", "kd_early", "route"))
    assert (short.method, short.control) == ("ce_quarter", {"budget": 0.25})
    assert states.method == "ce_states"
    assert len({plain.id, short.id, states.id}) == 3
    assert specs("methods=kd")[-1].protocol == specs("methods=kd_early")[0].protocol


def test_the_own_values_of_a_method_hold_for_its_assistants():
    plain, changed = (specs("methods=kd_chain", "teacher=resnet32", *w) for w in ([], ["KD.temperature=2"]))
    assert plain[0] == changed[0]
    assert all(a.id != b.id for a, b in zip(plain[1:], changed[1:], strict=True))


def found(source="digits", student="resnet14"):
    run = TeacherRun(f"byot-digits-{student}-s0-0123456789", "byot", student, source)
    return lambda word: run if run.id.startswith(word) else None


def test_a_run_teaches_by_its_id():
    (spec,) = specs("methods=kd", "teacher=byot-digits", find_run=found())
    assert spec.teacher_runs == ("byot-digits-resnet14-s0-0123456789",)
    assert spec.teacher == "resnet14 byot"
    assert specs(*spec.command().split()[2:], find_run=found()) == [spec]


def test_a_run_heads_a_chain():
    assistant, student = specs(
        "methods=kd_chain", "teacher=byot", "student=resnet8", find_run=found(student="resnet20")
    )
    assert assistant.teacher_runs == ("byot-digits-resnet20-s0-0123456789",)
    assert (assistant.student, student.teacher_runs) == ("resnet14", (assistant.id,))
    (student,) = specs("methods=kd_chain", "teacher=byot", "student=resnet8", find_run=found())
    assert student.teacher_runs == ("byot-digits-resnet14-s0-0123456789",), "nothing of the chain is below it"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["methods=kd", "teacher=resnet21"], "unknown teacher 'resnet21'; did you mean"),
        (["methods=kd_random_teacher", "teacher=byot"], "takes an untrained teacher: name a backbone, not a run"),
        (["methods=kd", "Teaching.states=3"], "Teaching.* can be bound in a method's gin file only"),
    ],
)
def test_bad_input_gets_one_sentence(words, sentence):
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        specs(*words, find_run=found())
    assert sentence in str(caught.value)


def test_a_run_of_other_images_is_refused_before_anything_starts():
    with pytest.raises(UserError, match=r"was trained on the images of 'cifar10', not on those of 'digits'"):
        specs("methods=kd", "teacher=byot", find_run=found("cifar10"))


@pytest.mark.parametrize(
    ("name", "binding", "sentence"),
    [
        ("mine1", "Teaching.chain = ('resnet9',)", "unknown backbone in Teaching.chain of 'mine1' 'resnet9'"),
        ("mine2", "Teaching.chain = ('resnet8', 'resnet8')", "Teaching.chain must name each backbone once"),
        (
            "mine3",
            "Teaching.method = 'kd_by_kd'",
            "trains the teachers of 'mine3' and its own must be trained without a teacher: its Teaching.method cannot be 'kd'",
        ),
        ("mine4", "Teaching.method = 'cee'", "unknown method 'cee'; did you mean 'ce'?"),
        ("mine5", "Teaching.states = 0", "Teaching.states must be at least 1"),
    ],
)
def test_a_gin_file_that_asks_for_teachers_that_cannot_be_is_refused(tmp_path, name, binding, sentence):
    (tmp_path / "gin" / "method").mkdir(parents=True)
    text = "include 'method/kd.gin'\n\nTeaching.method = 'kd'\n"
    (tmp_path / "gin" / "method" / "kd_by_kd.gin").write_text(text)
    (tmp_path / "gin" / "method" / f"{name}.gin").write_text(f"include 'method/kd.gin'\n\n{binding}\n")
    places.add_plugins([str(tmp_path)])
    with pytest.raises(UserError) as caught:
        specs(f"methods={name}")
    assert sentence in str(caught.value)


def test_a_spec_is_read_back_also_from_a_kdbench_whose_runs_had_one_teacher_at_most():
    import json

    teacher, spec = specs("methods=kd")
    assert Spec.from_plain(json.loads(json.dumps(spec.plain()))) == spec
    old = {**spec.plain(), "teacher_run": teacher.id, "teacher_selected": True}
    for name in ("teacher_runs", "teacher_folders", "teacher_word"):
        del old[name]
    assert Spec.from_plain(old) == spec


def test_a_teaching_method_with_a_teacher_is_trained_after_it_once_for_all_students():
    lowest, fitted, *students = specs("methods=ft,kd", "teacher=resnet14", "student=resnet8,resnet20", "seeds=0")
    by_name = {(spec.method, spec.student): spec for spec in students}
    assert len(by_name) == len(students) == 4
    small = by_name["ft", "resnet8"]
    assert names([lowest, fitted]) == [("ce", "resnet14", 0, True), ("ft_paraphraser", "resnet14", 0, True)]
    assert (fitted.teacher_runs, small.teacher_runs) == ((lowest.id,), (fitted.id,))
    assert by_name["kd", "resnet8"].teacher_runs == (lowest.id,)
    assert small.teacher == "resnet14 ft_paraphraser"
    assert specs(*small.command().split()[2:])[-1] == small


def test_a_run_or_file_is_the_teacher_of_the_teaching_method(tmp_path):
    fitted, student = specs("methods=ft", "teacher=byot", "student=resnet8", find_run=found())
    assert fitted.teacher_runs == ("byot-digits-resnet14-s0-0123456789",)
    assert (fitted.method, fitted.student, student.teacher_runs) == ("ft_paraphraser", "resnet14", (fitted.id,))
    done = TeacherRun("ft_paraphraser-digits-resnet14-s0-0123456789", "ft_paraphraser", "resnet14", "digits")
    (student,) = specs("methods=ft", "teacher=ft_para", "student=resnet8", find_run=lambda word: done)
    assert student.teacher_runs == (done.id,)
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"")
    fitted, student = specs("methods=ft", f"teacher=resnet20:{file}", "student=resnet8")
    assert (fitted.student, fitted.teacher_file) == ("resnet20", f"resnet20:{file}")
    with pytest.raises(UserError, match=f"name the network of the file, as in teacher=resnet20:{file}"):
        specs("methods=ft", f"teacher={file}", "student=resnet8")
