"""Test methods in a plug-in folder like a user's, each of which shows what the contract of a method offers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdbench import methods
from kdbench.backbones import registry
from kdbench.config import places, signature
from kdbench.launch import local
from kdbench.method import Backbone, Features, Info, Method, Teacher
from kdbench.methods import load
from kdbench.plan import expand, request
from kdbench.streams import Streams

PLUGIN = Path(__file__).parent / "plugin"
SHORT = [
    "dataset=digits",
    "student=resnet8",
    "teacher=resnet14",
    "Train.epochs=3",
    "Train.batch_size=16",
    "Train.warmup=0",
    "Split.validation=0.2",
    "Machine.threads=1",
    "Measures.corruptions=False",
    "Measures.images=10",
    "Measures.noise=()",
]


@pytest.fixture(scope="module", autouse=True)
def plugin(few_test_images):
    """The plug-in folder is one of kdbench's roots."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KDBENCH_PLUGINS", "")
        places.add_plugins([str(PLUGIN)])
        signature.of_method.cache_clear()
        for path in sorted((PLUGIN / "methods").glob("*.py")):  # so that tests can import them as kdbench.methods.NAME
            methods.load(path.stem)
        yield PLUGIN
    places.add_plugins([])
    signature.of_method.cache_clear()


@pytest.fixture(scope="module")
def plan() -> Callable[..., list]:
    """The specs of a command line of short runs on digits, the method's own last."""

    def specs(*words: str) -> list:
        given = {word.partition("=")[0] for word in words}
        usual = [word for word in SHORT if word.partition("=")[0] not in given]
        return expand.plan(request.parse([*usual, *words]))

    return specs


@pytest.fixture(scope="module")
def run_all(plan) -> Callable[..., list[dict[str, Any]]]:
    """Does the runs of a command line in a folder, and returns their results in the order of the plan."""
    return lambda runs, *words: local.inline(plan(*words), runs, None)


@pytest.fixture(scope="session")
def flops_of() -> Callable[[Backbone], int]:
    """FLOPs of a digit through a network, as torch's own counter has them."""

    @torch.no_grad()
    def count(network: Backbone) -> int:
        with FlopCounterMode(display=False) as counter:
            network.eval()(torch.zeros(1, 1, 8, 8))
        return counter.get_total_flops()

    return count


@pytest.fixture
def module() -> Callable[[str], Any]:
    """The module of a method by name."""

    def of(name: str) -> Any:
        load(name)
        return importlib.import_module(f"kdbench.methods.{name}")

    return of


@pytest.fixture
def made_up() -> Callable[[type[Method]], Method]:
    """A method of a class that a test makes up, around a student with the same weights each time, and a teacher."""

    def build(cls: type[Method]) -> Method:
        labels = torch.tensor([0, 1, 2, 3] * 6)

        def network(name: str | None, stream: str) -> Backbone:
            with Streams(0).as_global(stream):
                return registry.build(name or "resnet8", 4, 1)

        info = Info(4, labels, (1, 8, 8), 0.0, torch.device("cpu"), batch_size=6, steps=100, network=network)
        with Streams(0).as_global("method"):
            return cls(network(None, "student"), [Teacher(network("resnet14", "teacher"))], info).train()

    return build


class Table(nn.Module):
    """Stands for a network: gives one row of outputs after another, whatever the images are.

    Args:
        outputs: logits (B, K), or `Features`, of each call.
        width: of the pooled feature.
    """

    def __init__(self, *outputs: Tensor | Features, width: int = 1):
        super().__init__()
        self.outputs = list(outputs)
        self.fc = nn.Linear(width, 1)

    def forward(self, images: Tensor, features: bool = False) -> Tensor | Features:
        return self.outputs.pop(0)


@pytest.fixture
def table() -> type[Table]:
    return Table
