"""`kdbench tune` on digits: real trials, two epochs long."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import gin
import pytest

from kdbench.cli.main import main
from kdbench.config import bindings, places
from kdbench.data.task import SealedTest
from kdbench.plan import expand, request
from kdbench.report.folders import read_runs
from kdbench.store import studies

RECIPE = ["dataset=digits", "student=resnet8", "teacher=resnet14", "Train.epochs=2", "Train.warmup=0"]
WORDS = [*RECIPE, "Split.validation=0.2", "Measures.corruptions=False", "Measures.images=10"]
RUNS = Path("runs")

pytestmark = pytest.mark.usefixtures("few_test_images")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("KDBENCH_PLUGINS", "")
    monkeypatch.delenv("KDBENCH_RUNS", raising=False)
    yield
    monkeypatch.undo()
    places.add_plugins([])
    bindings._method_file.cache_clear()


def stored(runs=RUNS):
    """The trials of each method, without what differs between two times."""
    contents = [json.loads(path.read_text()) for path in runs.glob("tuning/*/study.json")]
    keys = ("number", "parameters", "values", "status", "accuracy.val", "by_seed", "error")
    return {each["method"]: [{key: trial[key] for key in keys} for trial in each["trials"]] for each in contents}


def commands(out):
    return [shlex.split(line)[1:] for line in out.splitlines() if line.startswith("kdbench run ")]


def test_every_method_gets_the_same_trials_the_gin_values_first(capsys):
    assert main(["tune", "ce,kd", "trials=3", *WORDS, "seeds=0,1"]) == 0
    out = capsys.readouterr().out
    studies = stored()
    assert {method: len(trials) for method, trials in studies.items()} == {"ce": 3, "kd": 3}
    assert studies["kd"][0]["parameters"] == {"temperature": 4.0, "kd_weight": 0.9}
    assert studies["ce"][0]["parameters"] == {"label_smoothing": None}
    for method, trials in studies.items():
        space = bindings.search_space(method)
        assert len({json.dumps(trial["parameters"]) for trial in trials}) == 3
        assert all(space[name].holds(value) for trial in trials[1:] for name, value in trial["parameters"].items())
        for trial in trials:
            assert trial["accuracy.val"] == pytest.approx(sum(trial["by_seed"].values()) / 2)
        top = max(trials, key=lambda trial: trial["accuracy.val"])
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [method]]
        assert line.split()[1:5] == ["3", "0", f"{top['accuracy.val']:.2f}", f"{trials[0]['accuracy.val']:.2f}"]
    assert [words[1] for words in commands(out)] == ["methods=ce", "methods=kd"]
    assert all("seeds=2,3,4" in words for words in commands(out)), "seeds that no trial used"


def test_a_trial_is_a_run_whose_validation_accuracy_is_that_of_the_run(capsys):
    assert main(["tune", "ce", "trials=2", *WORDS]) == 0
    (command,) = commands(capsys.readouterr().out)
    main([word.replace("seeds=1,2,3", "seeds=0") for word in command])
    (result,) = read_runs(RUNS).results
    top = studies.best(stored()["ce"])
    assert result["accuracy.val"] == top["accuracy.val"]
    assert result["tuning.trials"] == 2


def test_the_test_set_is_never_read(monkeypatch, capsys):
    assert main(["run", "methods=kd", *WORDS]) == 0  # the teacher's run reads it, and so does this one
    asked = []
    for name in ("read", "choose", "training_is_over"):
        monkeypatch.setattr(SealedTest, name, lambda *a, name=name: asked.append(name))
    assert main(["tune", "ce,kd", "trials=2", *WORDS]) == 0
    assert asked == []
    assert {method: len(trials) for method, trials in stored().items()} == {"ce": 2, "kd": 2}
    assert main(["run", "methods=ce", *WORDS]) == 1, "the patch is where a run would read"
    assert asked


def test_an_interrupted_study_goes_on_as_an_uninterrupted_one_and_a_larger_number_continues_it(monkeypatch):
    from kdbench.run import execute

    whole = ["tune", "ce", "trials=7", *WORDS, "--runs", "whole"]
    assert main(whole) == 0
    real, done = execute.validate, []

    def stopping(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return real(*arguments)

    monkeypatch.setattr(execute, "validate", stopping)
    assert main(["tune", "ce", "trials=6", *WORDS]) == 130
    assert stored()["ce"] == stored(Path("whole"))["ce"][:2]
    monkeypatch.setattr(execute, "validate", real)
    assert main(["tune", "ce", "trials=6", *WORDS]) == 0
    assert stored()["ce"] == stored(Path("whole"))["ce"][:6]
    assert main(["tune", "ce", "trials=7", *WORDS]) == 0
    assert stored()["ce"] == stored(Path("whole"))["ce"]


def test_what_is_done_is_not_done_again_and_fewer_trials_are_refused(monkeypatch, capsys):
    assert main(["tune", "ce", "trials=2", *WORDS]) == 0
    before = capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "ce", "trials=2", *WORDS]) == 0
    shown = capsys.readouterr()
    assert shown.out == before
    assert "all trials are already done; nothing was trained" in shown.err
    assert main(["tune", "kd,ce", "trials=1", *WORDS]) == 2
    assert "already has 2 trials, and trials cannot be removed: pass trials=2 or more" in capsys.readouterr().err


def test_planning_between_trials_does_not_see_what_gin_holds_of_the_last_run():
    words = ["methods=kd", *WORDS]
    before = expand.plan(request.parse(words))
    gin.parse_config("Control.teacher = 'untrained'\nSelection.on_test = True")
    try:
        assert expand.plan(request.parse(words)) == before
    finally:
        gin.clear_config()


def test_a_failed_trial_counts_and_is_never_the_best(tmp_path, capsys):
    file = tmp_path / "mine" / "gin" / "method" / "rkd_x.gin"
    file.parent.mkdir(parents=True)
    file.write_text("include 'method/rkd.gin'\nSearch.space = {'angle_weight': ('log', 1e37, 1e38)}\n")
    assert main(["tune", "rkd_x", "trials=3", *WORDS, "--plugins", "mine"]) == 0
    out = capsys.readouterr().out
    (trials,) = stored().values()
    assert [trial["status"] for trial in trials] == ["finished", "failed", "failed"]
    assert "the loss is not finite" in trials[1]["error"]
    (line,) = [line for line in out.splitlines() if line.startswith("rkd_x ")]
    assert line.split()[1:3] == ["3", "2"]
    assert line.endswith("(the gin values)")


def test_rows_say_how_many_trials_chose_their_values(capsys):
    assert main(["tune", "ce,kd", "trials=3", *WORDS]) == 0
    assert main(["run", "methods=kd", *WORDS]) == 0
    make_best("ce", 0)
    make_best("kd", 2)
    capsys.readouterr()
    assert main(["tune", "ce,kd", "trials=3", *WORDS]) == 0
    ce, kd = commands(capsys.readouterr().out)
    assert not [word for word in ce if word.startswith("CE.")], "the gin values are the best"

    # The values are what was tuned, whatever the seeds they are then run with.
    assert "seeds=1,2,3" in ce
    kd = [word.replace("seeds=1,2,3", "seeds=0") for word in kd]
    assert main([word.replace("seeds=1,2,3", "seeds=0,5") for word in ce]) == 0
    assert "ce (3 trials)" in capsys.readouterr().out
    assert main([word.replace("methods=kd", "methods=ce,kd") for word in kd]) == 0
    table = capsys.readouterr().out
    chosen = stored()["kd"][2]["parameters"]
    assert f"kd (kd_weight={chosen['kd_weight']}, temperature={chosen['temperature']}; 3 trials)" in table
    assert "no differences can be given" not in table, "ce with its gin values is the baseline, tuned or not"

    results = read_runs(RUNS).results
    told = {(r["method"], r["student"], r["method.parameters"] == "{}"): r["tuning.trials"] for r in results}
    assert told == {
        ("ce", "resnet14", True): 0,
        ("ce", "resnet8", True): 3,
        ("kd", "resnet8", True): 0,
        ("kd", "resnet8", False): 3,
    }
    assert {r["tuning.study"] for r in results} == {
        None,
        *(path.parent.name for path in RUNS.glob("tuning/*/study.json")),
    }


def make_best(method, number):
    (path,) = RUNS.glob(f"tuning/{method}-*/study.json")
    content = json.loads(path.read_text())
    for trial in content["trials"]:
        trial["accuracy.val"] = 99.0 if trial["number"] == number else 1.0
    path.write_text(json.dumps(content))


def test_what_ends_every_trial_is_no_trial(capsys):
    assert main(["tune", "ce", "trials=2", *WORDS, "Machine.device=xpu"]) == 1
    assert "ce: stopped after 0 trials: Machine.device='xpu' is not available here" in capsys.readouterr().err
    assert stored() == {}


def test_without_optuna_there_is_one_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "ce", "trials=2", *WORDS]) == 2
    assert capsys.readouterr().err == (
        "kdbench: kdbench tune needs Optuna, which is not installed: pip install 'kdbench[tune]'\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["ce", "trials=2", *RECIPE],
            "the recipe 'quick' has no validation split, and tuning cannot use the test set",
        ),
        (
            ["ce_smooth", "trials=2", *WORDS],
            "'ce_smooth' has nothing to tune: gin/method/ce_smooth.gin has no Search.space",
        ),
        (["ce", "trials=2", *WORDS, "CE.label_smoothing=0.1"], "CE.label_smoothing is a method's own parameter"),
        (
            ["ce", "trials=2", *WORDS, "Selection.on_test=True"],
            "tuning cannot use the test set; remove Selection.on_test",
        ),
        (["ce", "trials=2", *WORDS, "gpus=2"], "kdbench tune does not support gpus=N"),
        (["ce", "trials=2", *WORDS, "SGD.lr=0.1,0.2"], "kdbench tune takes one value of SGD.lr, not 2"),
        (["ce", "trials=2", *WORDS, "Machine.device=mps"], "Machine.device=mps needs an Apple GPU"),
        (["ce", *WORDS], "trials=N is required"),
        (["ce", "trials=0", *WORDS], "trials must be a positive integer, such as trials=20, not '0'"),
        (["ce", "trials=2,3", *WORDS], "'trials' takes one value, not 2"),
        (["ce", "trials=2", *WORDS, "workers=2"], "kdbench tune supports executor=inline only"),
        (["ce", "trials=2", *WORDS, "temprature=2"], ".temperature'?"),
        (["ce", "trails=2", *WORDS], "did you mean 'trials'?"),
        (["trials=2", *WORDS], "specify a method to tune"),
        (["ce", "kd", "trials=2", *WORDS], "one comma-separated list: kdbench tune ce,kd trials=20"),
        (["cee", "trials=2", *WORDS], "unknown method 'cee'; did you mean 'ce'?"),
    ],
)
def test_wrong_input_is_refused_before_anything_starts(tmp_path, capsys, words, sentence):
    assert main(["tune", *words]) == 2
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_dry_run_prints_the_studies_without_torch_or_optuna(tmp_path):
    words = ["tune", "kd", "trials=3", *WORDS, "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "kdbench", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert not imported & {"torch", "optuna", "pandas"}
    assert "0 trials done, 3 to do, seeds 0, teacher ce-digits-resnet14-s0-" in done.stdout
    assert "temperature: log 1 to 16 (gin: 4.0)" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_method_whose_values_train_its_assistants_is_refused(capsys, monkeypatch):
    monkeypatch.setenv("KDBENCH_PLUGINS", str(Path(__file__).parents[1] / "teaching"))
    places.add_plugins([])
    assert main(["tune", "kd_chain", "trials=2", *WORDS]) == 2
    error = capsys.readouterr().err
    assert "does not support 'kd_chain': the method trains assistants (Teaching.chain) with its own parameters" in error
    assert "every trial would have to train them again" in error


def test_a_finished_run_teaches_the_trials(capsys):
    assert main(["run", "methods=byot", *(w for w in WORDS if "student" not in w), "student=resnet14"]) == 0
    assert main(["tune", "kd", "trials=2", *(w for w in WORDS if "teacher" not in w), "teacher=byot-digits"]) == 0
    assert [trial["status"] for trial in stored()["kd"]] == ["finished"] * 2
