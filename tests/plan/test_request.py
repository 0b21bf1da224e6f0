"""Sweeps: files of selections and bindings, and lists of values of parameters that take lists."""

import pytest

from kdbench.config import about, places
from kdbench.errors import UserError
from kdbench.plan import expand, request

COLD = "Sweep.methods = ('ce', 'kd')\nSweep.bindings = ('KD.temperature=1,2,4', 'Train.epochs=7')\n"


@pytest.fixture
def sweep(own_plugins, tmp_path, monkeypatch):
    """Adds the user's sweep 'mine'."""

    def add(text):
        path = tmp_path / "gin" / "sweep" / "mine.gin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        monkeypatch.setenv("KDBENCH_PLUGINS", str(tmp_path))
        places.add_plugins([])

    return add


def ids(*words):
    return {spec.id for spec in expand.plan(request.parse(words)) if not spec.is_teacher}


def test_the_bindings_of_a_sweep_make_the_runs_of_separate_commands(sweep):
    sweep(COLD)
    alone = [ids("methods=ce,kd", "Train.epochs=7", f"KD.temperature={value}") for value in (1, 2, 4)]
    assert ids("sweep=mine") == set.union(*alone)
    assert len(ids("sweep=mine")) == 1 + 3
    for spec in expand.plan(request.parse(["sweep=mine"])):
        assert spec.command().count("sweep=") == 0


def test_the_command_line_comes_before_the_sweep_parameter_by_parameter(sweep):
    sweep(COLD)
    assert ids("sweep=mine", "KD.temperature=8", "methods=kd") == ids(
        "methods=kd", "KD.temperature=8", "Train.epochs=7"
    )
    assert ids("sweep=mine", "KD.kd_weight=0.5,1") == ids(
        "methods=ce,kd", "KD.temperature=1,2,4", "Train.epochs=7", "KD.kd_weight=0.5,1"
    )


def test_a_value_of_a_sweep_names_the_file_as_its_origin(sweep):
    sweep(COLD)
    (epochs,) = (binding for binding in request.parse(["sweep=mine"]).overrides if binding.key == "Train.epochs")
    assert epochs.origin == "sweep/mine.gin:2"


@pytest.mark.parametrize(
    ("bindings", "sentence"),
    [
        ("'KD.temprature=1,2'", "unknown parameter of KD 'temprature'; did you mean 'temperature'?"),
        ("'KD.temperature=1,two'", "KD.temperature takes a number such as 0.5, not 'two'"),
        ("'seeds=0,1'", "'seeds=0,1' is not a binding such as 'Train.epochs=5'"),
        ("'KD.temperature'", "'KD.temperature' is not a binding such as 'Train.epochs=5'"),
        ("'KD.temperature=1', 'KD.temperature=2'", "KD.temperature is given twice; to compare values, pass a list"),
        ("'Defaults.recipe=smoke'", "Defaults.* can be bound in a dataset's gin file only"),
        ("'RKD.angle_weight=1,2'", "nothing in this plan uses RKD.angle_weight (methods: kd)"),
    ],
)
def test_an_error_in_a_sweep_is_a_sentence_with_its_place(sweep, bindings, sentence):
    sweep(f"Sweep.methods = ('kd',)\nSweep.bindings = ({bindings},)\n")
    with pytest.raises(UserError) as caught:
        ids("sweep=mine")
    assert str(caught.value).startswith(f"sweep/mine.gin:2: {sentence}")


def test_several_lists_are_kept_apart_by_their_parentheses():
    words = ("methods=ce", "Train.schedule=MultiStep", "MultiStep.gamma=0.1")
    two = ids(*words, "MultiStep.milestones=(0.5,),[0.5,0.75]")
    assert two == ids(*words, "MultiStep.milestones=(0.5,)") | ids(*words, "MultiStep.milestones=(0.5,0.75)")
    for wrong in ("(0.5,),0.75", "0.5,0.75"):
        with pytest.raises(UserError, match=r"MultiStep.milestones takes a list, each item a number"):
            ids(*words, f"MultiStep.milestones={wrong}")


def test_the_sweep_of_temperatures_has_a_row_for_each():
    plan = expand.plan(request.parse(["sweep=temperature", "seeds=0"]))
    rows = [(spec.method, spec.own_overrides) for spec in plan if not spec.is_teacher]
    kd = [("kd", {"KD.temperature": float(value)} if value != 4 else {}) for value in (1, 2, 4, 8)]
    assert rows == [("ce", {}), *kd]


def test_the_sweep_with_standardisation_has_each_method_next_to_its_base():
    methods = request.parse(["sweep=with_ls"]).methods
    bases = {method: about.base(method) for method in methods if method.startswith("ls_")}
    assert len(bases) == 4
    assert {*bases, *bases.values(), "ce"} == {*methods}


def test_the_sweep_of_a_family_holds_all_of_it():
    methods = request.parse(["sweep=logit_family"]).methods
    assert methods[0] == "ce"
    assert [*methods[1:]] == about.of_family("family/logit", [*places.sources()])
    assert {"kd", "dkd"} < {*methods}
