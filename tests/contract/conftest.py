"""Test methods in a plug-in folder like a user's, each of which shows what the contract of a method offers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kdbench import methods
from kdbench.config import places, signature
from kdbench.launch import local
from kdbench.method import Backbone
from kdbench.plan import expand, request

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
    "Measures.noise=()",
]


@pytest.fixture(scope="package", autouse=True)
def plugin():
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
