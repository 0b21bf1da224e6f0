import pytest

from kdbench.cli import run_filter
from kdbench.cli.main import main
from kdbench.launch import status as status_
from kdbench.plan import expand, request
from kdbench.store.folder import RunFolder

TEACHER, *SPECS = expand.plan(request.parse(["methods=ce,kd,corsd", "dataset=digits", "seeds=0,1"]))
CE, CE1, KD = SPECS[:3]


@pytest.fixture
def ask(tmp_path):
    def put(spec, begun=False):
        folder = RunFolder(tmp_path, spec.id)
        folder.enqueue(spec.plain())
        if begun:
            folder.begin(spec.config)

    return put


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ([], SPECS),
        (["all"], SPECS),
        (["methods=kd,ce", "seeds=1"], [CE1, SPECS[3]]),
        (["ce"], [CE, CE1]),
        (["ce-digits-resnet8-s0", KD.id], [CE, KD]),
        (["state=planned,finished"], [s for s in SPECS if s != CE1]),
        (["state=running"], []),
        (["student=resnet8", "dataset=digits", "methods=rkd"], []),
    ],
)
def test_selections(tmp_path, ask, words, ids):
    for spec in SPECS:
        ask(spec)
    ask(CE1, begun=True)
    selected = run_filter.parse(words)
    chosen = selected.select(status_.read(tmp_path, selected.ids(tmp_path)))
    assert [run.id for run in chosen] == sorted(spec.id for spec in ids)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("method=kd", "unknown selection 'method'; did you mean 'methods'?"),
        (
            "SGD.lr=0.1",
            "unknown selection 'SGD.lr'; valid: methods, dataset, student, seeds, state, and run ids or prefixes",
        ),
        ("methods=cosrd", "unknown method 'cosrd'; did you mean 'corsd'?"),
        ("state=runing", "unknown state 'runing'; did you mean 'running'?"),
        ("seeds=x", "seeds must be non-negative integers"),
        ("methods=", "'methods=' has no value"),
        ("cee-digits", f"did you mean '{CE.id}'? See all with: kdbench status --all"),
    ],
)
def test_a_wrong_word_is_one_sentence(tmp_path, ask, capsys, word, sentence):
    ask(CE)
    for command in ("status", "cancel"):
        assert main([command, word, "--runs", str(tmp_path)]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        (line,) = shown.err.splitlines()
        assert sentence in line
