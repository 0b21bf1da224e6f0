import gin
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.config import places, run_config, settings, signature
from kdbench.config.syntax import Reference
from kdbench.errors import UserError
from kdbench.plan import expand, request
from kdbench.store.folder import RunFolder


def specs(*words):
    return expand.plan(request.parse([*words, "Machine.device=cuda:1", "Measures.noise=(0.1,)"]))


@pytest.mark.parametrize("words", [["methods=all", "dataset=digits"], ["methods=ce_3x,kd", "dataset=cifar100"]])
def test_values_are_those_of_the_text_and_their_repr_is_the_text(words, tmp_path):
    for spec in specs(*words):
        folder = RunFolder(tmp_path, spec.id)
        folder.begin(f"# {spec.command()}\n\n{spec.config}")
        config = run_config.read(folder / "config.gin")
        assert config == run_config.RunConfig(run_config.parse(spec.config, spec.id).values, spec.command())
        assert run_config.write(config.values) == spec.config
        assert run_config.write(config.values, spec.command()) == (folder / "config.gin").read_text()
        written = [f"{key} = {value!r}" for key, value in config.values.items()]
        assert written == [line for line in spec.config.splitlines() if line and not line.startswith("#")]


def test_values_are_python_objects():
    text = "Train.epochs = 60.0\nTrain.schedule = @Cosine()\nGone.names = ('a', 'b')\nMachine.log = ''\n"
    config = run_config.parse(text, "a run")
    assert config.values == {
        "Train.epochs": 60.0, "Train.schedule": Reference("Cosine"), "Gone.names": ("a", "b"), "Machine.log": "",
    }  # fmt: skip
    assert config.command is None
    written = run_config.write(config.values)
    assert sorted(line for line in written.splitlines(True) if line[0] not in "#\n") == sorted(text.splitlines(True))


def test_the_command_is_that_of_the_first_line_only():
    assert run_config.command_in("# kdbench run methods=ce seeds=0\n") == "kdbench run methods=ce seeds=0"
    assert run_config.command_in("# what all methods share\n") is None
    assert run_config.parse("Train.epochs = 1\n# kdbench run methods=ce\n", "a run").command is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import antigravity\n", "run/config.gin is not a resolved configuration: it holds more than bindings"),
        ("epochs = 3\n", "it holds more than bindings"),
        ("include 'recipe/quick.gin'\n", "it holds more than bindings"),
        ("Train.epochs = ten\n", "run/config.gin does not parse: Failed to parse token 'ten'"),
        ("Train.epochs =\n", "run/config.gin does not parse"),
        ("A.b = 'x'\nimport os\n", "it holds more than bindings"),
        ("Train.epochs = %long\n", "Train.epochs is Macro(name='long')"),
        ("Train.epochs = @Cosine()\n", "Train.epochs is @Cosine()"),
        ("Train.schedule = @Gone()\n", "Train.schedule is @Gone()"),
        ("Gone.names = (1, @Cosine())\n", "Gone.names is @Cosine()"),
        ("a/Train.epochs = 3\n", "'Train.epochs' is not one parameter of one configurable"),
        ("kdbench.config.settings.Machine.gpus = 3\n", "is not one parameter of one configurable"),
        ("Train.epochs = 1\nTrain.epochs = 2\n", "it binds Train.epochs twice"),
        ("Train.epochs = 1e999\n", "Train.epochs is inf, which is not finite"),
        ("Gone.name = b'x'\n", "Gone.name is b'x', which is not a number, a string"),
        ("Gone.sizes = {[1]: 2}\n", "run/config.gin does not parse: unhashable type"),
        ("Gone.size = " + "(" * 2000, "run/config.gin does not parse"),
        (b"\xff\xfe", "run/config.gin does not parse"),
    ],
)
def test_anything_but_bindings_is_refused_in_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "run" / "config.gin"
    path.parent.mkdir()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        run_config.read(path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        run_config.read(tmp_path / "config.gin")


HIDDEN = "Gone.notes = '''\nMachine.threads = 1 '''\ninclude '/etc/passwd'\nMachine.threads = '''\n'''\n"


def test_a_line_of_a_string_stays_in_its_string():
    """The text whose lines, without those that begin with Machine., are statements that gin carries out."""
    text = "Gone.a = '''\nMachine.x = ''' '''\ninclude \"/etc/passwd\"\nMachine.y = '''\n"
    values = run_config.parse(text, "a run").values
    assert values == {"Gone.a": '\nMachine.x = \ninclude "/etc/passwd"\nMachine.y = '}
    written = run_config.write({**values, "Machine.threads": 2})
    assert run_config.parse(written, "a run").values == {**values, "Machine.threads": 2}
    with pytest.raises(UserError, match="holds more than bindings"):
        run_config.parse(HIDDEN, "a run")


PIECES = st.sampled_from(
    [
        *(
            "Train.epochs = 3",
            "Machine.threads = 2",
            "Machine.log = ",
            "KD.temperature = 4.0",
            "Gone.notes = ",
            "Train.",
        ),
        *(
            "import antigravity",
            "from os import path",
            "include '/etc/passwd'",
            "include 'recipe/quick.gin'",
            "import ",
            "a/",
        ),
        *(
            "%long",
            "long = 3",
            "@Cosine()",
            "@gin.macro()",
            "@Train",
            "Train.schedule = @Cosine()",
            "Train:",
            "  epochs = 3",
        ),
        *(
            "'''",
            '"""',
            "'",
            '"',
            "\\",
            "r'",
            "b'x'",
            "f'{1}'",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            ":",
            ",",
            "=",
            "#",
            "-",
            "1e999",
        ),
        *(
            "\n",
            "\r\n",
            "\r",
            "\x0c",
            "\x0b",
            "\u2028",
            "\0",
            "\t",
            "  ",
            "\\\n",
            "\ufeff",
            "\ud800",
            "9" * 5000,
            "(" * 300,
        ),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=24).map("".join)


@given(text=TEXTS)
def test_no_text_does_anything_but_give_values(text, touched):
    def values_of(text):
        try:
            return run_config.parse(text, "a run").values
        except UserError as error:
            return str(error)

    values, events = touched(values_of, text)
    assert events == []
    if isinstance(values, str):
        assert "\n" not in values
    else:
        assert run_config.parse(run_config.write(values), "a run").values == values


@pytest.fixture(scope="module")
def kd():
    """A planned run, with everything imported and read that its configuration needs."""
    from kdbench import methods

    (spec,) = (spec for spec in specs("methods=kd", "dataset=digits") if not spec.is_teacher)
    methods.load(spec.source)
    run_config.bind(run_config.trainable(spec.config, spec.id, spec.source))
    return spec


@given(data=st.data())
def test_what_is_trained_is_bound_without_an_import_or_a_file(kd, touched, data):
    lines = kd.config.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        lines[at : at + data.draw(st.integers(0, 1))] = [data.draw(TEXTS)]

    def bind(text):
        try:
            run_config.bind(values := run_config.trainable(text, kd.id, kd.source))
        except UserError:
            return {}
        return {key: value for key, value in values.items() if not isinstance(value, Reference)}

    try:
        values, events = touched(bind, "".join(lines))
        methods = f"open {places.own_root() / 'methods'}/"  # read to say whose configurable a refused name is
        assert [event for event in events if not event.startswith(methods)] == []
        assert {key: gin.query_parameter(key) for key in values} == values
    finally:
        gin.clear_config()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("KD.temperature = 4.0", "kd does not set KD.temperature"),
        ("Dataset.source = 'digits'", "kd does not set Dataset.source"),
        (
            "KD.temperature = 4.0\nKD.temprature = 4.0",
            "unknown parameter of KD 'temprature'; did you mean 'temperature'?",
        ),
        ("KD.temperature = 'hot'", "kd: KD.temperature takes a number such as 0.5, not 'hot'"),
        ("KD.temperature = 4.0\nCluster.gpus = 1", "Cluster.gpus, which does not belong to it"),
        ("KD.temperature = 4.0\nGone.size = 1", "unknown configurable 'Gone'"),
    ],
)
def test_what_a_run_cannot_be_trained_with_is_one_sentence(kd, line, sentence):
    key = line.partition(" ")[0]
    kept = "".join(each for each in kd.config.splitlines(True) if not each.startswith(f"{key} "))
    text = kept if sentence.startswith("kd does not set") else f"{kept}{line}\n"
    with pytest.raises(UserError) as caught:
        run_config.trainable(text, "kd", kd.source)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stored_precision_is_a_named_one(kd):
    """A folder of someone else's may hold what no plan writes; it must not train in float32 without a word."""
    automatic = kd.config.replace("'float32'", "'auto'")
    run_config.bind(run_config.trainable(automatic, "kd", kd.source))
    with pytest.raises(ValueError, match=r"a run has Train\.precision='float32' or 'bfloat16'"):
        settings.from_gin()


def test_the_configurables_of_a_run_are_those_that_a_plan_binds():
    planned = specs("methods=all", "dataset=digits")
    used = {key.partition(".")[0] for spec in planned for key in run_config.parse(spec.config, spec.id).values}
    assert {name for name in used if name in signature.shared()} <= {*signature.of_runs()}
