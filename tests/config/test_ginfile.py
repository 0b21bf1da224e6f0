import pytest

from kdbench.config import ginfile, signature
from kdbench.config.ginfile import Reference, parse_override, read
from kdbench.errors import UserError

KNOWN = {name: signature.shared()[name] for name in ("Train", "SGD", "Cosine")}


def write(tmp_path, text, name="r.gin"):
    path = tmp_path / "recipe" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_values_come_in_the_parameters_own_type_with_their_place(tmp_path):
    path = write(tmp_path, "# why\nTrain.epochs = 5\nTrain.schedule = @Cosine()\n\nSGD:\n  lr = 1e-1\n")
    bindings = read(path, KNOWN, "the recipe 'r'")
    assert bindings["Train.epochs"].value == 5.0
    assert isinstance(bindings["Train.epochs"].value, float)
    assert bindings["Train.epochs"].origin == "recipe/r.gin:2"
    assert bindings["Train.schedule"].value == Reference("Cosine")
    assert bindings["SGD.lr"].value == 0.1


def test_a_macro_is_replaced_by_its_value_wherever_it_is_defined(tmp_path):
    path = write(tmp_path, "Train.epochs = %long\nSGD.lr = %long\nlong = 3\n")
    assert {key: b.value for key, b in read(path, KNOWN, "x").items()} == {"Train.epochs": 3.0, "SGD.lr": 3.0}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Train.epoch = 5", r"recipe/r.gin:1: unknown parameter of Train 'epoch'; did you mean 'epochs'\?"),
        ("Tran.epochs = 5", "unknown configurable 'Tran'; did you mean 'Train'"),
        ("Train.epochs = 'ten'", "Train.epochs takes a number such as 0.5, not 'ten'"),
        ("Train.epochs = ten", "recipe/r.gin does not parse: Failed to parse token 'ten'"),
        ("Train.epochs = %lnog\nlong = 3", "unknown macro 'lnog'; did you mean 'long'"),
        ("Train.epochs = %long", "unknown macro 'long'"),
        ("bach_size = 3", r"recipe/r.gin:1: nothing uses 'bach_size'; did you mean 'Train.batch_size'\?"),
        ("Train.epochs = 1\nTrain.epochs = 2", "recipe/r.gin:2: 'Train.epochs' is bound twice"),
        ("a/Train.epochs = 1", "scopes"),
        ("import torch", "imports are not allowed in kdbench gin files"),
        ("Train.schedule = 'Cosine'", "unknown schedule 'Cosine'; did you mean '@Cosine()'"),
        ("Train.schedule = @Cosin()", "unknown schedule 'Cosin'"),
        ("Train.epochs = @Cosine()", "Train.epochs takes a number"),
        ("KD.temperature = 3", "the recipe 'r' binds KD.temperature, which does not belong to it; it may bind Train"),
        ("include 'recipe/none.gin'", "r.gin includes 'recipe/none.gin', which was not found in any gin/ folder"),
        ("Train.epochs = 1\ninclude 'recipe/standard.gin'", "includes must come first"),
        ("include '../../etc/passwd'", "r.gin includes '../../etc/passwd'; an include is written as 'GROUP/NAME.gin'"),
        ("include 'recipe/../../x.gin'", "an include is written as 'GROUP/NAME.gin'"),
        ("include '/etc/passwd'", "an include is written as 'GROUP/NAME.gin'"),
        ("Train.epochs = %long\nlong = %long", "the macro 'long' is made of itself"),
        (
            "\n".join(["Train.epochs = %a0", *(f"a{n} = %a{n + 1}" for n in range(2000)), "a2000 = 3"]),
            "part of more than 50",
        ),
        ("SGD.lr = 1e999", "recipe/r.gin:1: SGD.lr cannot be inf, which is not finite"),
        ("SGD.lr = -1e999", "SGD.lr cannot be -inf, which is not finite"),
        (f"SGD.lr = 1{'0' * 400}", "SGD.lr cannot be an integer of more than 64 bits"),
        ("Train.batch_size = 9223372036854775808", "Train.batch_size cannot be an integer of more than 64 bits"),
        ("SGD.lr = 1j", "SGD.lr takes a number such as 0.5, not 1j"),
        ("SGD.lr = {%a: 1}\na = 3", "a macro cannot be a key"),
    ],
)
def test_what_gin_takes_in_silence_is_refused(tmp_path, text, sentence):
    with pytest.raises(UserError) as caught:
        read(write(tmp_path, text + "\n"), KNOWN, "the recipe 'r'")
    assert sentence.replace("\\", "") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Train.epochs=5", 5.0),
        ("Train.precision=bfloat16", "bfloat16"),
        ("Train.precision='bfloat16'", "bfloat16"),
        ("Train.schedule=MultiStep", Reference("MultiStep")),
        ("Train.schedule=@MultiStep()", Reference("MultiStep")),
        ("MultiStep.milestones=(0.5, 0.75)", (0.5, 0.75)),
        ("CE.label_smoothing=None", None),
        ("Machine.device=cuda:1", "cuda:1"),
    ],
)
def test_overrides(text, value):
    binding = parse_override(text, ginfile.Configurables())
    assert binding.value == value
    assert binding.origin == "command line"


def test_configurables_are_all_but_those_left_out_and_a_name_parses_one_file(monkeypatch):
    every = ginfile.Configurables(without=("Sweep",))
    assert {"Train", "CORSD", "KD"} <= set(every)
    assert "Sweep" not in every
    assert "Sweep" in ginfile.Configurables()
    assert len(every) == len(list(every)) == len(ginfile.Configurables()) - 1
    parsed = []
    monkeypatch.setattr(signature, "of_method", lambda name: parsed.append(name) or original(name))
    assert every["KD"].name == "KD"
    assert "KD" in every
    assert "Kd" not in every
    assert set(parsed) == {"kd"}


original = signature.of_method
