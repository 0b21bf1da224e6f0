import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.config import places, processor
from kdbench.errors import UserError
from kdbench.plan import expand, request
from kdbench.plan import spec as spec_


def specs(*words):
    return expand.plan(request.parse(words))


def one(*words):
    return [spec for spec in specs(*words) if not spec.is_teacher][-1]


def test_a_bare_run_is_the_six_of_the_default_sweep_on_digits_teacher_first():
    found = specs()
    assert found[0].is_teacher
    assert {spec.method for spec in found} == {"ce", "kd", "rkd", "crd", "byot", "corsd"}
    assert {spec.dataset for spec in found} == {"digits"}
    assert sorted({spec.seed for spec in found}) == [0, 1, 2]


def test_the_plan_is_the_product_of_the_selections_each_run_once():
    found = specs("methods=ce,kd", "student=resnet8,resnet14", "teacher=resnet20,resnet32", "seeds=0,1")
    asked = [s for s in found if not s.is_teacher]
    # ce needs no teacher and so is there once for both
    assert len(asked) == 2 * 2 * 1 + 2 * 2 * 2
    assert [s.student for s in found if s.is_teacher] == ["resnet20", "resnet32"]
    assert len({s.id for s in found}) == len(found)


def test_a_teacher_stands_before_those_that_need_it_also_when_asked_for_itself():
    found = specs("methods=kd,ce", "student=resnet20,resnet8", "teacher=resnet20")
    place = {spec.id: i for i, spec in enumerate(found)}
    assert all(place[run] < place[s.id] for s in found for run in s.teacher_runs)
    assert [s.student for s in found if s.is_teacher] == ["resnet20"], "the equal one; the other was asked for itself"


def test_a_teacher_of_the_students_own_architecture_is_not_its_twin():
    equal, teacher = specs("methods=kd", "student=resnet8", "teacher=resnet8,resnet14", "seeds=0")[:2]
    assert (equal.student, equal.seed) == ("resnet8", spec_.EQUAL_TEACHER_SEED)
    assert (teacher.student, teacher.seed) == ("resnet14", spec_.TEACHER_SEED)


def test_controls_choose_their_teachers(tmp_path):
    teacher, again = specs("methods=born_again", "student=resnet14", "teacher=resnet20")
    assert (teacher.student, teacher.method, again.teacher_runs) == ("resnet14", "ce", (teacher.id,))
    assert "teacher=" not in again.command()
    (random,) = specs("methods=kd_random_teacher", "teacher=resnet20")
    assert (random.teacher, random.teacher_untrained, random.teacher_runs) == ("resnet20 untrained", "resnet20", ())
    assert one("methods=kd_random_teacher", "teacher=resnet32").id != random.id
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"weights")
    with pytest.raises(UserError, match="takes an untrained teacher: name a backbone"):
        specs("methods=kd_random_teacher", f"teacher={weights}")


def test_all_means_no_variants_unless_they_are_named_too():
    assert {s.method for s in specs("methods=all,ce_3x") if not s.is_teacher} == {*places.sources(), "ce_3x"}


def test_the_id_changes_with_all_that_defines_the_result():
    base = ("methods=kd", "dataset=digits")
    ids = [
        one(*base, *more).id
        for more in (
            [], ["seeds=1"], ["student=resnet14"], ["teacher=resnet32"], ["Train.epochs=3"], ["KD.temperature=2"], ["recipe=smoke"],
        )
    ]  # fmt: skip
    assert len(set(ids)) == len(ids)


def test_the_id_changes_with_nothing_else(tmp_path, monkeypatch):
    base = one("methods=kd", "dataset=digits").id
    assert one("dataset=digits", "methods=kd", "seeds=0").id == base
    assert one("methods=kd", "recipe=quick", "student=resnet8", "teacher=resnet20").id == base
    assert one("methods=kd", "Machine.device=cuda:3", "Machine.threads=7").id == base
    assert one("methods=crd,kd", "CRD.momentum=0.1").id == base
    monkeypatch.chdir(tmp_path)
    assert one("methods=kd").id == base


def test_a_methods_own_override_leaves_the_teacher_and_the_others_alone():
    plain, changed = specs("methods=ce,kd"), specs("methods=ce,kd", "CE.label_smoothing=0.2")
    assert [s.id for s in plain if s.is_teacher] == [s.id for s in changed if s.is_teacher]
    by_method = {s.method: s for s in changed if not s.is_teacher}
    assert by_method["ce"].own_overrides == {"CE.label_smoothing": 0.2}
    assert by_method["kd"].own_overrides == {}


def test_a_shared_override_reaches_the_teacher():
    (teacher,) = [s for s in specs("methods=kd", "Train.epochs=3") if s.is_teacher]
    assert teacher.overrides == {"Train.epochs": 3.0}
    assert teacher.protocol == one("methods=kd", "Train.epochs=3").protocol


def test_weights_from_outside_are_known_by_content_not_by_place(tmp_path):
    first, second, other = tmp_path / "a.pt", tmp_path / "b.pt", tmp_path / "c.pt"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    other.write_bytes(b"others")
    found = {path: one("methods=kd", f"teacher={path}") for path in (first, second, other)}
    assert found[first].id == found[second].id != found[other].id
    assert found[first].teacher_runs == ()
    assert len(specs("methods=kd", f"teacher={first}")) == 1


@pytest.mark.parametrize("words", [
    ["methods=kd", "teacher=resnet32", "seeds=3"], ["methods=crd", "CRD.momentum=0.25", "Train.epochs=7"],
    ["methods=ce", "Train.schedule=MultiStep", "MultiStep.milestones=(0.5,)", "MultiStep.gamma=0.1"],
    ["methods=corsd", "CORSD.kl=raw", "recipe=corsd_paper"],
])  # fmt: skip
def test_the_command_of_a_run_makes_that_run(words):
    spec = one(*words)
    assert one(*shlex.split(spec.command())[2:]) == spec


@pytest.mark.parametrize(
    ("word", "singles"),
    [
        ("KD.temperature=1,2,4,8", [f"KD.temperature={value}" for value in (1, 2, 4, 8)]),
        ("Train.epochs=1,2", ["Train.epochs=1", "Train.epochs=2"]),
        ("KD.kd_weight=0.9,0.5", ["", "KD.kd_weight=0.5"]),
        ("Train.precision=float32,bfloat16", ["Train.precision=float32", "Train.precision=bfloat16"]),
    ],
)
def test_each_of_several_values_is_the_run_of_that_value_alone(word, singles):
    base = ("methods=kd", "Train.warmup=0")
    alone = [spec for single in singles for spec in specs(*base, *filter(None, [single]))]
    assert {spec.id: spec for spec in specs(*base, word)} == {spec.id: spec for spec in alone}
    assert len({spec.id for spec in alone if not spec.is_teacher}) == len(singles)


def test_several_parameters_with_several_values_make_their_product():
    found = specs("methods=kd", "KD.temperature=1,2", "KD.kd_weight=0.5,1,0.5", "Train.epochs=7,8", "seeds=0-1")
    asked = [spec for spec in found if not spec.is_teacher]
    assert len({spec.id for spec in asked}) == len(asked) == 2 * 2 * 2 * 2
    assert len({spec.protocol for spec in asked}) == 2
    assert len([spec for spec in found if spec.is_teacher]) == 2, "one for each number of epochs"
    for spec in asked:
        assert one(*shlex.split(spec.command())[2:]) == spec


def test_other_methods_are_planned_once_and_not_once_for_each_value():
    found = [spec.method for spec in specs("methods=ce,kd,rkd", "KD.temperature=1,2,3") if not spec.is_teacher]
    assert found == ["ce", "kd", "kd", "kd", "rkd"]


def test_several_values_with_the_selections_of_a_sweep():
    plain = [spec for spec in specs("sweep=default") if not spec.is_teacher]
    several = [spec for spec in specs("sweep=default", "KD.temperature=1,2") if not spec.is_teacher]
    kd = len([spec for spec in plain if spec.method == "kd"])
    assert len(several) == len(plain) + kd
    assert {spec.id for spec in plain if spec.method != "kd"} < {spec.id for spec in several}


def test_several_schedules():
    words = ("methods=ce", "MultiStep.milestones=(0.5,)", "MultiStep.gamma=0.1,0.2")
    found = specs(*words, "Train.schedule=Cosine,@MultiStep()")
    assert len(found) == 3, "gamma has no effect on the cosine"
    assert specs("methods=ce")[0].id == found[0].id


def test_a_list_is_one_value_where_the_parameter_takes_a_list():
    words = ("methods=ce", "Train.schedule=MultiStep", "MultiStep.gamma=0.1")
    (spec,) = specs(*words, "MultiStep.milestones=(0.5, 0.75)")
    assert spec.overrides["MultiStep.milestones"] == [0.5, 0.75]
    with pytest.raises(UserError, match=r"MultiStep.milestones takes a list, each item a number .*, not '0.5,0.75'"):
        specs(*words, "MultiStep.milestones=0.5,0.75")


@given(seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=4, unique=True))
def test_seeds(seeds):
    assert request.parse(["methods=ce", f"seeds={','.join(map(str, seeds))}"]).seeds == tuple(seeds)


def test_ranges_of_seeds():
    assert request.parse(["methods=ce", "seeds=0-2,7"]).seeds == (0, 1, 2, 7)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["metods=corsd"], "unknown selection 'metods'; did you mean 'methods'?"),
        (["methods=cosrd"], "unknown method 'cosrd'; did you mean 'corsd'?"),
        (["dataset=cifar1000"], "unknown dataset 'cifar1000'; did you mean 'cifar100'?"),
        (["student=resnet21"], "unknown student 'resnet21'"),
        (["teacher=resnet21"], "unknown teacher 'resnet21'"),
        (["teacher=no/such.pt"], "the teacher's weight file 'no/such.pt' does not exist"),
        (["recipe=smok"], "unknown recipe 'smok'; did you mean 'smoke'?"),
        (["sweep=defalt"], "unknown sweep 'defalt'; did you mean 'default'?"),
        (["executor=slrm"], "unknown executor 'slrm'"),
        (["bach_size=128"], "unknown selection 'bach_size'; did you mean 'Train.batch_size'?"),
        (["CORSD.margn=2"], "unknown parameter of CORSD 'margn'; did you mean 'margin'?"),
        (["CORDS.margin=2"], "unknown configurable 'CORDS'; did you mean 'CORSD'?"),
        (["Train.epochs=ten"], "Train.epochs takes a number such as 0.5, not 'ten'"),
        (["methods=ce", "KD.temperature=2"], "nothing in this plan uses KD.temperature (methods: ce)"),
        (["methods=ce", "methods=kd"], "'methods' is given twice"),
        (
            ["SGD.lr=1", "SGD.lr=2"],
            "SGD.lr is given twice on the command line; to compare values, pass a list (SGD.lr=A,B)",
        ),
        (["KD.temperature=1,two"], "KD.temperature takes a number such as 0.5, not 'two'"),
        (["Machine.threads=1,2"], "Machine.threads takes an integer such as 10, not '1,2'"),
        (["methods=ce", "KD.temperature=1,2"], "nothing in this plan uses KD.temperature (methods: ce)"),
        (["teacher=none"], "teacher=none is not needed: methods without a teacher ignore teacher="),
        (
            ["teacher=resnet20+resnet32"],
            "teacher=resnet20+resnet32 is not possible: teacher= selects one teacher per run",
        ),
        (["Machine.device=cud"], "unknown Machine.device 'cud'; did you mean 'cuda'?"),
        (["Machine.device=gpu"], "unknown Machine.device 'gpu'; did you mean 'cuda'?"),
        (["Machine.device=cuda:x"], "unknown Machine.device 'cuda:x'; did you mean 'cuda'?"),
        (["seeds=-1"], "seeds must be non-negative integers or ranges, such as seeds=0,1,2 or seeds=0-4, not '-1'"),
        (["methods="], "'methods=' has no value"),
        (["corsd"], "'corsd' is neither a selection"),
    ],
)
def test_bad_input_gets_one_sentence(words, sentence):
    with pytest.raises(UserError) as caught:
        specs(*words)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(params=["float32", "bfloat16"])
def native(request, monkeypatch):
    """The precision that this machine computes natively."""
    for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(processor, "cpu_flags", lambda: {"amx_bf16"} if request.param == "bfloat16" else set())
    return request.param


@pytest.fixture
def recipe_fast(own_plugins, tmp_path, monkeypatch):
    """A recipe of the user's that leaves the precision to the machine."""
    path = tmp_path / "gin" / "recipe" / "fast.gin"
    path.parent.mkdir(parents=True)
    path.write_text("include 'recipe/quick.gin'\nTrain.precision = 'auto'\n")
    monkeypatch.setenv("KDBENCH_PLUGINS", str(tmp_path))
    places.add_plugins([])


def automatic(*words):
    """The runs of words, and what the plan reports about them."""
    sentences = []
    return expand.plan(request.parse(words), report=sentences.append), sentences


@pytest.mark.parametrize("words", [["methods=kd,ce", "seeds=0-1"], ["methods=born_again"], ["sweep=default"]])
def test_an_automatic_precision_is_the_run_whose_precision_is_named(native, words):
    found, sentences = automatic(*words, "Train.precision=auto")
    assert found == specs(*words, f"Train.precision={native}")
    assert all(f"Train.precision = '{native}'" in spec.config for spec in found)
    why = "has instructions for it (amx_bf16)" if native == "bfloat16" else "has no bfloat16 instructions"
    assert len(sentences) == 1
    assert sentences[0].startswith(f"precision: {native}, because this CPU {why}")
    assert automatic(*words, f"Train.precision={native}")[1] == automatic(*words)[1] == []


def test_an_automatic_precision_among_named_ones_is_one_of_them(native):
    named = specs("methods=kd", "Train.precision=float32,bfloat16")
    assert {spec.id for spec in specs("methods=kd", "Train.precision=auto,float32,bfloat16")} == {s.id for s in named}


@pytest.mark.usefixtures("recipe_fast")
def test_a_recipe_may_leave_the_precision_to_the_machine(native):
    found, sentences = automatic("methods=kd", "recipe=fast")
    assert found == specs("methods=kd", "recipe=fast", f"Train.precision={native}")
    assert len(sentences) == 1
    assert f"Train.precision={native}" in found[-1].command(), "the same run on any machine"
    assert {spec.protocol for spec in found} == {one("methods=kd", f"Train.precision={native}").protocol}
    assert automatic("methods=kd", "recipe=fast", "Train.precision=float32")[1] == []


@pytest.mark.usefixtures("recipe_fast")
def test_an_automatic_precision_is_refused_where_other_machines_do_the_runs():
    for words in (["Train.precision=auto"], ["Train.precision=float32,auto"], ["recipe=fast"]):
        with pytest.raises(UserError, match=r"^Train.precision=auto depends on .*executor=slurm may use others; pass"):
            specs("methods=kd", "executor=slurm", *words)
    assert specs("methods=kd", "executor=slurm", "recipe=fast", "Train.precision=bfloat16")
