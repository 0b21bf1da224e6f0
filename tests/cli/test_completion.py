"""Completion by the shell: the words that may follow, and bash itself once."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdbench.cli import commands, completion, run_filter
from kdbench.cli.commands import power
from kdbench.config import extensions, places
from kdbench.plan import method_words
from kdbench.plan import request as run_request
from kdbench.report import request as report_request

ROOT = Path(__file__).parents[2]


def complete(command, prefix, *before, argument="words", runs=None):
    parsed = argparse.Namespace(words=list(before), runs=runs, plugins=[])
    return completion.words(command, argument, prefix, parsed)


def test_the_keys_are_those_that_the_commands_accept():
    of_runs = run_request.KEYS
    assert {name: sorted(keys) for name, keys in completion._KEYS.items()} == {
        "run": sorted([*of_runs, "baseline"]),
        "show": sorted(of_runs),
        "diff": sorted(of_runs),
        "tune": sorted([*of_runs, "trials"]),
        "leaderboard": sorted(report_request._KEYS),
        "power": sorted(power._KEYS),
        **dict.fromkeys(("status", "cancel", "transfer", "latency"), sorted(run_filter.KEYS)),
    }


def test_every_completed_key_of_a_group_gives_its_members():
    families = [f"family/{family}" for family in method_words.families()]
    names = [*sorted(places.members("method")), "all", *families]
    assert complete("run", "methods=") == [f"methods={name}" for name in names]
    assert complete("run", "student=vgg") == [
        f"student={name}" for name in extensions.members("backbone") if name.startswith("vgg")
    ]


@pytest.mark.parametrize(
    ("command", "prefix", "before", "expected"),
    [
        ("run", "me", (), ["methods="]),
        ("run", "me", ("methods=kd",), []),
        ("run", "methods=kd,rk", (), ["methods=kd,rkd"]),
        ("run", "methods=rkd,rk", (), []),
        ("run", "methods=kd,family/rel", (), ["methods=kd,family/relation"]),
        ("run", "dataset=cifar1", (), ["dataset=cifar10", "dataset=cifar100"]),
        ("run", "executor=sl", (), ["executor=slurm"]),
        ("run", "executor=local,sl", (), []),
        ("run", "log=t", (), ["log=tensorboard"]),
        ("run", "zzz=", (), []),
        ("run", "Train.ep", (), ["Train.epochs="]),
        ("run", "Trai", (), None),
        ("run", "RKD.angle", (), ["RKD.angle_weight="]),
        ("run", "Train.optimiser=", (), ["Train.optimiser=sgd", "Train.optimiser=adamw"]),
        ("run", "Measures.corruptions=T", (), ["Measures.corruptions=True"]),
        ("run", "Nothing.at=", (), []),
        ("data", "Dataset.si", (), ["Dataset.size="]),
        ("data", "Train.ep", (), []),
        ("leaderboard", "columns=accuracy,ec", (), ["columns=accuracy,ece"]),
        ("leaderboard", "rows=m", (), ["rows=method"]),
        ("status", "state=fa", (), ["state=failed"]),
        ("tune", "kd,rk", (), ["kd,rkd"]),
        ("tune", "tr", (), ["trials="]),
        ("export", "x", (), []),
    ],
)
def test_words(command, prefix, before, expected):
    found = complete(command, prefix, *before)
    if expected is None:
        assert len(found) > 1
        assert all(word.startswith(prefix) for word in found)
    else:
        assert found == expected


def test_kinds_and_datasets_of_positional_arguments():
    assert complete("list", "me", argument="kind") == ["methods", "measures"]
    assert complete("data", "", argument="kind") == ["stats", "check"]
    assert complete("data", "cifar10", argument="dataset") == ["cifar10", "cifar100"]


def test_runs_are_those_of_the_folder(tmp_path, store, result):
    runs = store(result("ce") | {"run": "ce-digits-cnn-s0-0123456789ab"})
    (runs / "ce-digits-cnn-s0-0123456789ab/config.gin").write_text("")
    assert complete("logs", "ce", runs=runs) == ["ce-digits-cnn-s0-0123456789ab"]
    assert complete("status", "kd", runs=runs) == []


@pytest.mark.usefixtures("own_plugins")
def test_methods_of_plugins_are_completed(tmp_path):
    (tmp_path / "gin/method").mkdir(parents=True)
    (tmp_path / "gin/method/zigzag.gin").write_text("include 'method/kd.gin'\n")
    places.add_plugins([str(tmp_path)])
    assert complete("run", "methods=zig") == ["methods=zigzag"]


def test_options_come_first_for_argparse():
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--runs")
    parser.add_argument("--wait", action="store_true")

    def order(text):
        return " ".join(completion._options_first(text.split(), parser))

    assert order("kdbench run a=1 --runs r b=2 --wait c=3") == "kdbench run --runs r --wait a=1 b=2 c=3"
    assert order("kdbench run a=1 --runs") == "kdbench run a=1 --runs"


def in_bash(line, folder):
    program = folder / "kdbench"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom kdbench.cli.main import main\nsys.exit(main())\n")
    program.chmod(0o755)
    script = (
        'eval "$(python -m argcomplete.scripts.register_python_argcomplete kdbench)"\n'
        f"COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9\n"
        '_python_argcomplete kdbench; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes_a_list_after_an_option(tmp_path):
    pytest.importorskip("argcomplete")
    # = separates words in bash: what stands before it is on the line already.
    assert in_bash("kdbench run dataset=digits --dry-run methods=kd,rk", tmp_path) == ["kd,rkd"]


def test_completing_loads_neither_torch_nor_numpy(tmp_path):
    program = "import sys; from kdbench.cli import completion; import argparse\n"
    calls = [("run", "methods=k"), ("run", "KD."), ("leaderboard", "columns=a"), ("status", "state=")]
    program += "\n".join(
        f"assert completion.words({command!r}, 'words', {prefix!r}, argparse.Namespace(words=[], runs=None, plugins=[]))"
        for command, prefix in calls
    )
    program += "\nassert not {'torch', 'numpy', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_every_command_is_completed():
    assert set(completion._KEYS) | set(completion._BARE) <= set(commands.NAMES)
