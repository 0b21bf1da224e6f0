"""`kdbench reproduce` of a stranger's run: nothing executes, and nothing is written outside its own folder."""

import shutil
import sys
from pathlib import Path

import pytest

from kdbench.audit.reproduce import OUTCOME
from kdbench.cli.main import main
from kdbench.store.folder import RunFolder

pytestmark = pytest.mark.usefixtures("own_plugins")


@pytest.fixture
def foreign(finished, tmp_path, monkeypatch):
    """A stranger's folder of runs, and one's own with the same runs; returns the stranger's student."""
    shutil.copytree(finished / "runs", tmp_path / "theirs")
    shutil.copytree(finished / "runs", tmp_path / "mine")
    (tmp_path / "secret").write_text("mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (student,) = (tmp_path / "theirs").glob("kd-*")
    return student


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(student, capsys):
    """The sentence with which a stranger's run is refused, with nothing written."""
    here = student.parents[1]
    before = content(here)
    assert main(["reproduce", str(student), "--runs", "mine"]) == 2
    assert content(here) == before
    (sentence,) = capsys.readouterr().err.splitlines()
    return sentence


@pytest.fixture
def another(foreign, change):
    """The stranger's student under an id that its command does not give: what is trained is its stored configuration."""
    renamed = foreign.rename(foreign.with_name("kd-digits-resnet8-s0-0000000000"))
    change(renamed, run=renamed.name)
    return renamed


def test_no_statement_comes_out_of_a_string(foreign, another):
    """Lines that begin with Machine. are replaced; those of a string are part of its value."""
    (foreign.parents[1] / "evil.gin").write_text("import antigravity\n")
    config = another / "config.gin"
    kept = "".join(line for line in config.open() if not line.startswith("Machine.log"))
    config.write_text(f"{kept}Machine.log = '''\nMachine.x = ''' '''\ninclude \"evil.gin\"\nMachine.y = '''\n")
    assert main(["reproduce", str(another), "--runs", "mine"]) == 0
    (again,) = Path("mine/reproduced").glob("kd-*/config.gin")
    assert "evil" not in again.read_text()
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("import antigravity", "is not a resolved configuration: it holds more than bindings"),
        ("include 'evil.gin'", "is not a resolved configuration: it holds more than bindings"),
        ("KD.temperature = %evil", "it binds KD.temperature twice"),
        ("kdbench.config.settings.Machine.gpus = 64", "is not one parameter of one configurable"),
        ("x/Machine.gpus = 64", "is not one parameter of one configurable"),
    ],
)
def test_a_configuration_that_holds_more_than_values_is_refused(foreign, capsys, line, sentence):
    config = foreign / "config.gin"
    config.write_text(f"{config.read_text()}{line}\n")
    assert sentence in refused(foreign, capsys)


@pytest.mark.parametrize("name", ["../ID", "../mine/ID", "/tmp/ID", "ID/../ID", "..", "ID\n"])
def test_a_teachers_name_that_is_a_path_is_refused(foreign, capsys, name, teacher, change, another):
    own = teacher(foreign.parents[1] / "mine")
    (own / "checkpoint.pt").write_bytes(b"mine")
    shutil.copytree(teacher(foreign.parent), foreign.parents[1] / own.name)
    change(another, **{"teacher.run": name.replace("ID", own.name)})
    assert "cannot be the name of a run" in refused(another, capsys)


def test_a_run_that_teaches_itself_is_refused(foreign, capsys, change, another):
    change(another, **{"teacher.run": another.name})
    assert f"the run {another.name} is recorded as a teacher of itself" in refused(another, capsys)


@pytest.mark.parametrize("name", ["config.gin", "result.json", "checkpoint.pt", "epochs.csv", "plugin"])
def test_a_link_out_of_a_strangers_folder_is_refused(foreign, capsys, name):
    (foreign / name).unlink(missing_ok=True)
    (foreign / name).symlink_to(foreign.parents[1] / "secret")
    assert f"{name} is a link that leads out of the run's folder" in refused(foreign, capsys)


def test_a_teacher_behind_a_link_is_not_copied(foreign, capsys, teacher):
    path = teacher(foreign.parent) / "epochs.csv"
    path.unlink()
    path.symlink_to(foreign.parents[1] / "secret")
    assert "epochs.csv is a link that leads out of the run's folder" in refused(foreign, capsys)


def test_ones_own_run_in_the_way_of_a_teacher_is_not_replaced(foreign, capsys, teacher):
    own = teacher(foreign.parents[1] / "mine")
    (own / "checkpoint.pt").write_bytes(b"mine")
    for kd in own.parent.glob("kd-*"):
        shutil.rmtree(kd)
    before = content(own)
    assert main(["reproduce", str(foreign), "--runs", "elsewhere", "--out", "mine"]) == 2
    assert "already exists and was not created by kdbench reproduce" in capsys.readouterr().err
    assert content(own) == before


def test_a_folder_in_the_way_that_is_a_link_is_not_written_to(foreign, capsys):
    target = foreign.parents[1] / "target"
    target.mkdir()
    (target / OUTCOME).write_text("{}")
    Path("out").mkdir()
    (Path("out") / foreign.name).symlink_to(target)
    assert main(["reproduce", str(foreign), "--runs", "mine", "--out", "out"]) == 2
    assert "already exists and was not created by kdbench reproduce" in capsys.readouterr().err
    assert [path.name for path in target.iterdir()] == [OUTCOME]


@pytest.mark.parametrize("quoted", [True, False])
def test_a_teachers_path_with_spaces_is_in_the_command_as_a_shell_takes_it(
    foreign, capsys, quoted, teacher, change, short
):
    path = Path("my dir/t 1.pt")
    path.parent.mkdir()
    shutil.copyfile(teacher(foreign.parent) / "checkpoint.pt", path)
    words = ["methods=kd", *(word for word in short if not word.startswith("teacher=")), f"teacher={path}"]
    assert main(["run", *words, "Machine.threads=1", "--runs", "own"]) == 0
    (run,) = Path("own").glob("kd-*")
    command = RunFolder(run.parent, run.name).result()["provenance.command"]
    assert "teacher='my dir/t 1.pt'" in command
    assert (run / "config.gin").read_text().startswith(f"# {command}\n")
    if not quoted:  # as earlier versions wrote it
        change(run, provenance__command=command.replace("'", ""))
    capsys.readouterr()
    assert main(["reproduce", run.name, "--runs", "own"]) == 0
    assert "Reproduced: the weights are bit-identical." in capsys.readouterr().out
