"""A file that cannot be used leaves out itself and nothing else."""

import pytest

from kdbench import api
from kdbench.cli.main import main
from kdbench.config import defects, extensions, places

pytestmark = pytest.mark.usefixtures("own_plugins")

GOOD = "from kdbench.method import Method\nclass Good(Method):\n    def losses(self, batch): return {}\n"
PLAN = ["dataset=digits", "--dry-run"]


@pytest.fixture
def broken(tmp_path):
    """A plug-in with a sound method, one with an error in each of its files, and a broken file of each extension."""
    files = {
        "methods/good.py": GOOD,
        "gin/method/good.gin": "# Good.\n",
        "methods/torn.py": "class Torn(:\n",
        "gin/method/torn.gin": "# Torn.\n",
        "methods/bare.py": GOOD.replace("Good", "Bare").replace("    def", "    weight: float\n    def"),
        "methods/wrong.py": GOOD.replace("Good", "Wrong").replace("    def", "    weight: float\n    def"),
        "gin/method/wrong.gin": "# Wrong.\nWrong.wieght = 1.0\n",
        "methods/cut.py": GOOD.replace("Good", "Cut"),
        "gin/method/cut.gin": "# Cut.\nCut.x = (1,\n",
        "gin/control/cut_short.gin": "# A control.\ninclude 'method/cut.gin'\n",
        **{f"{kind.folder}/torn.py": f"{kind.table} = {{'mine': \n" for kind in extensions.KINDS.values()},
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    places.add_plugins([str(tmp_path)])
    return tmp_path


SENTENCES = {
    "torn": "methods/torn.py does not parse: invalid syntax (line 1)",
    "bare": "no gin file: write",
    "wrong": "method/wrong.gin:2: unknown parameter of Wrong 'wieght'; did you mean 'weight'?",
    "cut": "method/cut.gin does not parse: EOF in multi-line statement",
    "cut_short": "method/cut.gin does not parse: EOF in multi-line statement",
}


def test_each_method_that_cannot_be_used_has_its_sentence(broken):
    assert defects.of_methods().keys() == SENTENCES.keys()
    assert all(sentence in defects.of_methods()[name] for name, sentence in SENTENCES.items())
    assert f"{broken}/gin/method/bare.gin, with Bare.weight = …" in defects.of_methods()["bare"]
    assert len(defects.of_extensions()) == len(extensions.KINDS)


def test_list_shows_the_others_and_names_the_broken(broken, capsys):
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    for name in ("good", "kd", "resnet8", "cifar100", "calibration", "slurm"):
        assert any(line.startswith(f"{name} ") and "cannot be used" not in line for line in listed.splitlines()), name
    for name in SENTENCES:
        assert any(line.startswith(f"{name} ") and "cannot be used: " in line for line in listed.splitlines()), name
    for kind in extensions.KINDS.values():
        assert f"{broken}/{kind.folder}/torn.py does not parse: " in listed


def test_all_methods_are_the_others_and_the_rest_is_on_stderr(broken, capsys, tmp_path):
    assert main(["run", "methods=all", *PLAN, "--runs", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr()
    assert "good-digits" in shown.out
    assert "kd-digits" in shown.out
    assert all(f"{name}-digits" not in shown.out for name in SENTENCES)
    assert all(sentence in shown.err for name, sentence in SENTENCES.items() if name != "cut_short")
    with pytest.warns(UserWarning, match="left out: ") as warned:
        assert {"good", "kd"} <= {spec.method for spec in api.plan("methods=all", dataset="digits").runs}
    assert any("torn.py does not parse" in str(each.message) for each in warned)


def test_other_methods_run_beside_them(broken, capsys, tmp_path):
    assert main(["run", "methods=ce,good", *PLAN, "--runs", str(tmp_path / "runs")]) == 0
    errors = capsys.readouterr().err
    assert "methods/torn.py" not in errors
    assert "measures/torn.py does not parse" in errors


@pytest.mark.parametrize("name", SENTENCES)
def test_a_broken_method_that_is_named_is_refused(broken, capsys, name):
    assert main(["run", f"methods=ce,{name}", f"{name.capitalize()}.weight=1", *PLAN]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert SENTENCES[name] in line


@pytest.mark.parametrize(
    ("words", "kind"),
    [("student=mine", "student"), ("teacher=mine methods=kd", "teacher"), ("executor=mine", "executor")],
)
def test_a_member_of_a_broken_file_is_refused_with_the_reason(broken, capsys, words, kind):
    assert main(["run", *words.split(), *PLAN]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left out" not in line]
    assert f"the {kind} 'mine' cannot be used: {broken}/" in line
    assert "torn.py does not parse: '{' was never closed (line 1)" in line


@pytest.mark.parametrize(
    "text",
    [
        "T.x = (1\n",
        "T.x = 'a\n",
        "T.x\n",
        "T.x = 1 2\n",
        "T.x =\n",
        "x = %x\nT.y = %x\n",
        "\0",
        "  T.x = 1\n T.y = 2\n",
    ],
)
def test_no_error_in_a_gin_file_is_a_traceback(broken, capsys, text):
    (broken / "gin/method/cut.gin").write_text(text)
    places.add_plugins([])
    assert main(["run", "methods=cut", *PLAN]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "method/cut.gin" in line
