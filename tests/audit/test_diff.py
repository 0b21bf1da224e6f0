"""`kdbench diff`: run folders are written from the plan's own specs, as a run writes them, without training."""

import re

import pytest

from kdbench.audit import diff
from kdbench.cli.main import main
from kdbench.config import places
from kdbench.plan import expand, request
from kdbench.store.folder import RunFolder

KD = ["methods=kd", "dataset=digits"]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "runs"


@pytest.fixture
def made(runs):
    """Makes a finished run's folder of selections and returns its id; keywords, with `__` for the dot, change the result."""

    def make(*words, into=runs, **changes):
        spec = next(spec for spec in expand.plan(request.parse(words)) if not spec.is_teacher)
        folder = RunFolder(into, spec.id)
        folder.begin(f"# {spec.command()}\n\n{spec.config}")
        names = ("method", "dataset", "student", "teacher", "recipe", "seed", "protocol")
        result = {"run": spec.id, "status": "finished"} | {name: getattr(spec, name) for name in names}
        folder.finish(result | {key.replace("__", "."): value for key, value in changes.items()})
        return spec.id

    return make


def rows(out):
    """Parameter → (A's value, B's value, whose) of a printed table."""
    lines = [re.split(r"  +", line.strip()) for line in out.splitlines()]
    head = next((i for i, cells in enumerate(lines) if cells[0] == "parameter"), len(lines) - 1)
    return {cells[0]: tuple(cells[1:]) for cells in lines[head + 1 : -1] if len(cells) == 4}


def last(out):
    return out.rstrip().splitlines()[-1]


def test_two_methods_list_what_each_has_of_its_own(runs, capsys):
    assert main(["diff", "kd", "rkd"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == [f"{name}: dataset digits, recipe quick, teacher resnet20" for name in ("kd", "rkd")]
    assert rows(out) == {
        "KD.ce_weight": ("0.1", "–", "KD's own"),
        "KD.kd_weight": ("0.9", "–", "KD's own"),
        "KD.temperature": ("4.0", "–", "KD's own"),
        "RKD.angle_weight": ("–", "50.0", "RKD's own"),
        "RKD.distance_weight": ("–", "25.0", "RKD's own"),
    }
    assert last(out) == "5 parameters differ, all of them the methods' own: a fair comparison"


def test_selections_and_bindings_go_into_the_resolution(runs, capsys):
    words = ["dataset=cifar100", "recipe=smoke", "teacher=resnet32", "KD.temperature=2", "seeds=0,1,2"]
    assert main(["diff", "kd", "corsd", *words]) == 0
    out = capsys.readouterr().out
    assert "kd: dataset cifar100, recipe smoke, teacher resnet32" in out
    assert "corsd: dataset cifar100, recipe smoke, no teacher" in out
    assert rows(out)["KD.temperature"] == ("2.0", "–", "KD's own")


def test_variants_of_one_class_compare_what_they_have_in_common(runs, tmp_path, capsys, monkeypatch):
    path = tmp_path / "mine" / "gin" / "method" / "kd_hot.gin"
    path.parent.mkdir(parents=True)
    path.write_text("include 'method/kd.gin'\n\nKD.temperature = 20.0\n")
    monkeypatch.setenv("KDBENCH_PLUGINS", "")
    try:
        assert main(["diff", "kd", "kd_hot", "--plugins", str(tmp_path / "mine")]) == 0
        out = capsys.readouterr().out
        assert rows(out) == {"KD.temperature": ("4.0", "20.0", "KD's own")}
        assert last(out) == "1 parameter differs, the methods' own: a fair comparison"
    finally:
        monkeypatch.undo()
        places.add_plugins([])


def test_a_method_does_not_differ_from_itself(runs, capsys):
    assert main(["diff", "kd", "kd"]) == 0
    out = capsys.readouterr().out
    assert rows(out) == {}
    assert last(out) == "nothing differs: the two methods have the same configuration"


def test_runs_that_differ_in_their_own_parameters_only(made, capsys):
    a, b = made(*KD), made(*KD, "KD.temperature=2", "Machine.threads=3")
    assert main(["diff", a, b]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == [f"A: {a}, recipe quick, finished", f"B: {b}, recipe quick, finished"]
    assert rows(out) == {"KD.temperature": ("4.0", "2.0", "KD's own"), "Machine.threads": ("0", "3", "machine")}
    assert last(out) == (
        "2 parameters differ, 1 of them the methods' own and 1 of them the machine's: a fair comparison"
    )


def test_runs_with_other_shared_parameters_do_not_belong_together(made, capsys):
    a, b = made(*KD), made(*KD, "Train.epochs=5", "SGD.lr=0.3", "KD.temperature=2")
    assert main(["diff", a, b]) == 1
    out = capsys.readouterr().out
    lines = rows(out)
    assert lines.pop("protocol")[2] == "shared"
    assert lines == {
        "SGD.lr": ("0.05", "0.3", "shared"),
        "Train.epochs": ("60.0", "5.0", "shared"),
        "KD.temperature": ("4.0", "2.0", "KD's own"),
    }
    assert last(out) == "2 shared parameters differ: these runs do not belong in one table"


def test_another_schedule_brings_parameters_of_its_own(made, capsys):
    a, b = made(*KD), made(*KD, "Train.schedule=MultiStep", "MultiStep.milestones=(0.5,)", "MultiStep.gamma=0.1")
    assert main(["diff", a, b]) == 1
    lines = rows(capsys.readouterr().out)
    assert lines["Train.schedule"] == ("@Cosine()", "@MultiStep()", "shared")
    assert lines["Cosine.final"] == ("0.0", "–", "shared")
    assert lines["MultiStep.milestones"] == ("–", "(0.5,)", "shared")


@pytest.mark.parametrize(
    ("changes", "status", "row", "sentence"),
    [
        (["student=resnet14"], 1, "student", "student differs: these runs do not belong in one table"),
        (["seeds=1"], 0, "seed", "no parameter differs; seed differs"),
        (["teacher=resnet32"], 0, "teacher", "no parameter differs; teacher differs"),
    ],
)
def test_names_of_runs(made, capsys, changes, status, row, sentence):
    a, b = made(*KD), made(*KD, *changes)
    assert main(["diff", a, b]) == status
    out = capsys.readouterr().out
    assert list(rows(out)) == [row]
    assert last(out) == sentence


def test_seed_and_teacher_beside_parameters_are_named(made, capsys):
    a, b = made(*KD), made("methods=byot", "dataset=digits", "seeds=1")
    assert main(["diff", a, b]) == 0
    out = capsys.readouterr().out
    assert rows(out)["teacher"] == ("resnet20", "–", "the run's")
    assert last(out) == (
        "7 parameters differ, all of them the methods' own (teacher and seed differ too): "
        "a fair comparison, but not paired by seed"
    )


def test_equal_names_of_different_things(made, tmp_path, capsys):
    a = made(*KD, teacher__sha256="a" * 64, data__sha256="c" * 64)
    b = made(*KD, into=tmp_path / "b", teacher__sha256="b" * 64, data__sha256="c" * 64)
    c = made(*KD, into=tmp_path / "c", teacher__sha256="a" * 64, data__sha256="d" * 64)
    assert main(["diff", a, f"b/{b}"]) == 0
    assert rows(capsys.readouterr().out) == {"teacher": ("resnet20 aaaaaaaa", "resnet20 bbbbbbbb", "the run's")}
    assert main(["diff", a, f"c/{c}"]) == 1
    assert rows(capsys.readouterr().out) == {"dataset": ("digits cccccccc", "digits dddddddd", "shared")}


def test_a_protocol_of_another_version(made, tmp_path, capsys):
    a, b = made(*KD), made(*KD, into=tmp_path / "b", protocol="00000000")
    assert main(["diff", a, f"b/{b}"]) == 1
    out = capsys.readouterr().out
    assert list(rows(out)) == ["protocol"]
    assert last(out).startswith("the protocol differs but no shared parameter does")


def test_runs_of_methods_that_are_gone_are_read_and_nothing_is_executed(made, runs, capsys):
    a, b = made(*KD), made(*KD, "seeds=1")
    for name, text in ((a, "Gone.weight = 1.0\n"), (b, "Gone.weight = 2.0\n")):
        with (runs / name / "config.gin").open("a") as file:
            file.write(text)
    assert main(["diff", a, b]) == 0
    assert rows(capsys.readouterr().out)["Gone.weight"] == ("1.0", "2.0", "Gone's own")
    with (runs / a / "config.gin").open("a") as file:
        file.write("import antigravity\n")
    assert main(["diff", a, b]) == 2
    assert "holds more than bindings" in capsys.readouterr().err


def test_a_run_is_named_by_id_by_its_beginning_or_by_its_folder(made, runs, tmp_path):
    a, b = made(*KD), made(*KD, "seeds=1")
    for word in (a, a[:-3], "kd-digits-resnet8-s0", f"runs/{a}", f"runs/{a}/", str(runs / a)):
        comparison = diff.diff(word, b, runs)
        assert comparison.a.title.startswith(a)
        assert comparison.b.title.startswith(b)
    elsewhere = made(*KD, "seeds=2", into=tmp_path)
    assert diff.diff(elsewhere, b, runs).a.title.startswith(elsewhere)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["kd"], "diff compares two methods or two runs, as in kdbench diff A B; 1 given"),
        (["kd", "rkd", "crd"], "3 given"),
        (["kd", "rdk"], "'rdk' is neither a method nor a run in"),
        (["kd", "rdk"], "did you mean 'rkd'? See all with: kdbench list methods, kdbench status"),
        (["kd", "kd-digits-resnet8-s0"], "'kd' is a method and 'kd-digits-resnet8-s0' is a run"),
        (["kd-digits-resnet8-s0", "kd"], "'kd' is a method and 'kd-digits-resnet8-s0' is a run"),
        (["kd-digist-resnet8-s1", "kd"], "did you mean 'kd-digits-resnet8-s1-"),
        (["kd-digits", "kd-digits-resnet8-s1"], "'kd-digits' is ambiguous; it matches 2 runs: kd-digits-resnet8-s0-"),
        (["./kd", "rkd"], "'./kd' is not a run folder (it has no config.gin)"),
        (
            ["kd-digits-resnet8-s0", "kd-digits-resnet8-s1", "Train.epochs=3"],
            "'Train.epochs=3' applies to methods only",
        ),
        (["kd", "rkd", "dataset=digits,cifar10"], "diff takes one dataset, not 2"),
        (["kd", "rkd", "methods=ce"], "diff takes its two methods without 'methods='"),
        (["kd", "rkd", "CORSD.margin=2"], "nothing in this plan uses CORSD.margin"),
        (["kd", "rkd", "recpe=quick"], "did you mean 'recipe'?"),
        (["kd", "rkd", "--rnus", "x"], "did you mean '--runs'?"),
    ],
)
def test_what_cannot_be_compared_is_answered_in_one_sentence(made, capsys, words, sentence):
    made(*KD), made(*KD, "seeds=1")
    assert main(["diff", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert sentence in line


def test_a_run_without_a_result_is_refused(made, runs, capsys):
    a, b = made(*KD), made(*KD, "seeds=1")
    (runs / b / "result.json").unlink()
    assert main(["diff", a, b]) == 2
    assert f"the run '{b}' has no readable result" in capsys.readouterr().err


def test_into_a_pipe_lines_are_whole(made, monkeypatch, capsys):
    a, b = made(*KD), made("methods=kd", "dataset=cifar100")
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["diff", a, b]) == 1
    assert rows(capsys.readouterr().out)["Dataset.mean"] == ("(0.3,)", "(0.5071, 0.4867, 0.4408)", "shared")


def test_a_control_is_named_as_one(capsys):
    assert main(["diff", "ce", "ce_3x"]) == 1
    out = capsys.readouterr().out
    assert "the control's" in out
    assert "Control.budget differs: a control, in which more differs than a method's own parameters" in out
    assert main(["diff", "ce", "ce_smooth"]) == 0


def test_the_number_of_gpus_is_shared_where_each_normalises_its_own():
    def side(name, gpus, **more):
        return diff.Side(name, name, {"Machine.gpus": gpus, **more}, {})

    apart = {"Parallel.sync_bn": False}
    (together,) = diff.compare(side("a", 2), side("b", 4))
    (alone,) = diff.compare(side("a", 2, **apart), side("b", 4, **apart))
    assert (together.owner, alone.owner) == (diff.MACHINE, diff.SHARED)


def test_the_function_returns_data_and_prints_nothing(made, runs, capsys):
    comparison = diff.diff("kd", "ce", runs, ["dataset=cifar100"])
    assert not comparison.a.names
    assert comparison.is_fair
    assert diff.Difference("KD.temperature", "4.0", "–", "KD's own") in comparison.differences
    a, b = made(*KD), made(*KD, "Train.epochs=5")
    comparison = diff.diff(a, b, runs)
    assert comparison.a.values["Train.epochs"] == 60.0
    assert comparison.b.names["student"] == ("resnet8", None)
    assert not comparison.is_fair
    assert comparison.summary == "1 shared parameter differs: these runs do not belong in one table"
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")
