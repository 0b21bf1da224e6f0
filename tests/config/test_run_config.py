import pytest

from kdbench.config import run_config
from kdbench.config.ginfile import Reference
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
        assert config == run_config.RunConfig(
            run_config.parse(spec.config, spec.id).values, spec.config, spec.command()
        )
        written = [f"{key} = {value!r}" for key, value in config.values.items()]
        assert written == [line for line in spec.config.splitlines() if line and not line.startswith("#")]


def test_values_are_python_objects():
    text = "Train.epochs = 60.0\nTrain.schedule = @Cosine()\nGone.names = ('a', 'b')\nMachine.log = ''\n"
    config = run_config.parse(text, "a run")
    assert config.values == {
        "Train.epochs": 60.0, "Train.schedule": Reference("Cosine"), "Gone.names": ("a", "b"), "Machine.log": "",
    }  # fmt: skip
    assert (config.text, config.command) == (text, None)


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
