"""The programs of docs/examples run as they are, for a few steps."""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_plain_pytorch(capsys):
    assert load("plain_pytorch").main(epochs=3) > 25
    printed = capsys.readouterr().out
    assert "epoch 3: ce " in printed
    assert ", kd " in printed


@pytest.mark.filterwarnings("ignore")
def test_lightning_module(tmp_path, monkeypatch):
    pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    terms = load("lightning_module").main(
        max_steps=5, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    assert terms.keys() == {"loss/ce", "loss/kd"}
    assert all(0 < value < 100 for value in terms.values())
    assert not list(tmp_path.iterdir())


def test_the_losses_that_the_documentation_lists_are_those_of_the_methods():
    """Each function that it lists exists, and each function of a method's file that is not private is listed."""
    text = (EXAMPLES.parent / "python.md").read_text()
    rows = re.findall(r"^\| `(kdbench\.methods?(?:\.\w+)?)` \| (.*) \|$", text, flags=re.MULTILINE)
    listed = {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows}
    for module, names in listed.items():
        assert all(callable(getattr(importlib.import_module(module), name)) for name in names)
    for path in (EXAMPLES.parents[1] / "methods").glob("*.py"):
        module = importlib.import_module(f"kdbench.methods.{path.stem}")
        public = {n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__}
        assert {name for name in public if not name.startswith("_")} == listed.get(module.__name__, set())
