"""How the suite runs, and fixtures of several of its folders; the larger ones are in tests/support."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from kdbench.config import places as places_
from kdbench.config import signature

pytest_plugins = ["made_up", "reference_cases", "tiny_methods"]  # tests/support

ROOT = Path(__file__).parent.parent

CLUSTER = ("tests/launch/slurm/test_real_", "tests/launch/slurm/test_testcluster")
POOL = "tests/launch/test_pool.py"
UNCOVERED = ("tests/methods/", "tests/contract/", "tests/backbones/", "tests/run/loop/test_waiting.py")
"""Many tests of the same few lines, which counting would slow down; a line that they alone run counts as not run."""

# What a test says does not depend on how busy the machine is. KDBENCH_FUZZ=10000 looks longer than a few seconds.
settings.register_profile("untimed", deadline=None, max_examples=int(os.environ.get("KDBENCH_FUZZ", "100")))
settings.register_profile("quick", settings.get_profile("untimed"), max_examples=30)
settings.load_profile("untimed")

# A script that starts the tests in the background hands down an ignored Ctrl-C, which no child process would get.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    """The suite tests what a CPU computes, also where there is a GPU; `make gpu` tests the GPU."""
    if "not exhaustive" in config.getoption("markexpr") and "KDBENCH_FUZZ" not in os.environ:
        settings.load_profile("quick")
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One process more than cores: much of the suite is waiting for another process to start, or to notice something."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file in one process, for the fixtures they share, and those on the SLURM cluster too."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "cluster" if file.startswith(CLUSTER) else file

    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    """The slow tests that wait a lot come first, so that the others fill the gaps and none of them is left for the end."""
    items.sort(key=lambda item: not item.nodeid.startswith((*CLUSTER, POOL)))
    for item in items:
        if item.nodeid.startswith(UNCOVERED):
            item.add_marker(pytest.mark.no_cover)


class _Touched:
    """What this process opens, imports and executes while `into` is a list; Python takes no hook away again."""

    into: list[str] | None = None

    def __call__(self, event: str, details: tuple) -> None:
        if self.into is not None and event in ("open", "import", "exec", "os.system", "subprocess.Popen"):
            self.into.append(f"{event} {details[0]}")


@pytest.fixture(scope="session")
def touched() -> Callable[..., Any]:
    """Calls a function and returns what it returned, and what it opened, imported and executed."""
    hook = _Touched()
    sys.addaudithook(hook)

    def call(function: Callable[..., Any], *arguments: Any) -> tuple[Any, list[str]]:
        hook.into = events = []
        try:
            return function(*arguments), events
        finally:
            hook.into = None

    return call


@pytest.fixture(autouse=True, scope="session")
def cache_home(tmp_path_factory):
    """The user's own cache is in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def own_plugins(monkeypatch):
    """No plug-ins but those that the test adds, and none of them afterwards."""
    monkeypatch.setenv("KDBENCH_PLUGINS", "")
    places_.add_plugins([])
    signature.of_method.cache_clear()
    yield
    monkeypatch.undo()
    places_.add_plugins([])
    signature.of_method.cache_clear()


@pytest.fixture(scope="session")
def two_ranks() -> Callable[..., list]:
    """Runs a script in two processes of one group, and returns what each left in FOLDER/RANK.pt.

    Arguments: the script, the folder, which is the script's first argument, and the others.
    """

    def run(script: Path, folder: Path, *words: str) -> list:
        (folder / "alone").mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        processes = [
            subprocess.Popen(
                [sys.executable, str(script), str(folder), *words], stderr=subprocess.PIPE, text=True,
                env={**os.environ, **common, "PYTHONPATH": path, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(2)
        ]  # fmt: skip
        try:
            errors = [process.communicate(timeout=300)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
        return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]

    return run
