"""Fixtures of several rooms: reference cases of losses, methods on a task small enough for all, and made-up results."""

from __future__ import annotations

import ast
import copy
import csv
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from kdbench.backbones.cifar_resnet import BasicBlock, CifarResNet
from kdbench.backbones.registry import build
from kdbench.config import bindings, signature
from kdbench.config import places as places_
from kdbench.config.settings import SGD
from kdbench.data.readers import digits
from kdbench.data.readers import registry as readers
from kdbench.data.readers.arrays import Arrays
from kdbench.method import Backbone, Batch, Info, Method, Share, Teacher, Update
from kdbench.methods import class_of, load
from kdbench.streams import Streams

ROOT = Path(__file__).parent.parent
TEACHER = {"teacher": "resnet20", "teacher.sha256": "c" * 64, "teacher.accuracy": 61.26}

CLUSTER = ("tests/launch/slurm/test_real_", "tests/launch/slurm/test_testcluster")
POOL = "tests/launch/test_pool.py"
UNCOVERED = ("tests/methods/", "tests/contract/", "tests/backbones/", "tests/run/loop/test_waiting.py")
"""Many tests of the same few lines: counting these lines would make them slow and find nothing that others have not run."""

# What a test says does not depend on how busy the machine is. KDBENCH_FUZZ=10000 looks longer than a few seconds.
settings.register_profile("untimed", deadline=None, max_examples=int(os.environ.get("KDBENCH_FUZZ", "100")))
settings.load_profile("untimed")

# Whoever starts the tests in the background of a script hands down an ignored Ctrl-C, which no child process would get.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    """The suite tests what a CPU computes, also where there is a GPU; `make gpu` tests the GPU."""
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


class Case:
    """One entry of tests/reference/losses*.json, as float64 tensors; `student` tensors carry gradient.

    A list of maps (`student_maps`, `maps`) is one tensor each (`student_map_1`, `map_1`, …).
    """

    def __init__(self, entry: dict):
        self.entry = entry
        self.params = entry["params"]
        self.student = {
            name: torch.tensor(value, dtype=torch.float64).requires_grad_()
            for name, value in self._apart(entry.get("student", {})).items()
        }
        integers = ("index", "contrast_index", "labels", "negative_labels")
        self.fixed = {
            name: torch.tensor(value, dtype=torch.int64 if name in integers else torch.float64)
            for name, value in self._apart(entry["fixed"]).items()
        }

    @staticmethod
    def _apart(inputs: dict) -> dict:
        named: dict = {}
        for name, value in inputs.items():
            several = f"_{name}".endswith("_maps")
            named |= {f"{name[:-1]}_{n}": each for n, each in enumerate(value, 1)} if several else {name: value}
        return named

    def maps(self, whose: str) -> list[Tensor]:
        """The "student" maps or the "teacher" maps, shallowest first."""
        inputs = self.student if whose == "student" else self.fixed
        return [value for name, value in sorted(inputs.items()) if name.startswith(f"{whose}_map_")]

    def check(self, loss: Tensor) -> None:
        """The loss, and the norms of its gradients, are those of the reference; 0 where the loss does not reach a tensor.

        With KDBENCH_PARITY=FILE the relative errors are appended to FILE as well (tests/reference/parity.csv).
        """
        gradients = torch.autograd.grad(loss, list(self.student.values()), materialize_grads=True)
        norms = [gradient.norm().item() for gradient in gradients]
        expected = self.entry.get("grad_norm", norms)
        if len(expected) > len(norms):  # a list of tensors of one shape is one tensor here, and has one norm for each
            norms = [part.norm().item() for one in gradients for part in one.reshape(-1, *one.shape[-2:])]
        if file := os.environ.get("KDBENCH_PARITY"):
            self._append(Path(file), _error([loss.item()], [self.entry["loss"]]), _error(norms, expected))
        assert loss.item() == pytest.approx(self.entry["loss"], rel=1e-6)
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert norms == pytest.approx(expected, rel=1e-6)

    def _append(self, file: Path, of_loss: float, of_norms: float) -> None:
        new = not file.exists()
        test = os.environ["PYTEST_CURRENT_TEST"].partition("::")[0]
        with file.open("a", encoding="utf-8", newline="") as opened:
            lines = csv.writer(opened, lineterminator="\n")
            if new:
                lines.writerow(["case", "test file", "error of loss", "error of gradient norms"])
            lines.writerow([self.entry["case"], test, f"{of_loss:.1e}", f"{of_norms:.1e}"])


def _error(values: list[float], expected: list[float]) -> float:
    """Largest difference over the expected value; the difference itself where less than 1e-6 is expected, as of a loss of 0."""
    return max(
        abs(one - other) / (abs(other) if abs(other) > 1e-6 else 1.0)
        for one, other in zip(values, expected, strict=True)
    )


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
def reference() -> Callable[[str], Case]:
    """The reference case of a name."""
    return lambda name: Case(_reference_entries()[name])


@cache
def _reference_entries() -> dict[str, dict]:
    files = sorted((ROOT / "tests/reference").glob("losses*.json"))
    return {entry["case"]: entry for file in files for entry in json.loads(file.read_text())}


class FourStages(CifarResNet):
    """A quick network of four stages, with 24 channels at an eighth of the image's side; "four_stages" for `make`."""

    def __init__(self, *, classes: int, channels: int):
        super().__init__(depth=8, widths=(8, 8, 12, 16), classes=classes, channels=channels)
        self.layer4 = nn.Sequential(BasicBlock(16, 24, stride=2))
        self.fc = nn.Linear(24, classes)

    def stage_modules(self) -> tuple[nn.Sequential, ...]:
        return (*super().stage_modules(), self.layer4)


@pytest.fixture
def make() -> Callable[..., Method]:
    """A method by name, with its gin file's parameters and a student of its own.

    Keyword arguments: `student`, `teacher` (names, "four_stages" among them, or networks for 4 classes), `labels`, `image`
    (shape), `label_smoothing`, `batch_size`; all others override parameters of the method.
    """

    def method(name: str, **given: object) -> Method:
        load(name)  # finds the method also in a plug-in folder that was added since
        cls = getattr(importlib.import_module(f"kdbench.methods.{name}"), signature.of_method(name).name)
        labels = torch.as_tensor(given.pop("labels", [0, 1, 2, 3] * 6))
        image = given.pop("image", (1, 8, 8))
        classes = int(labels.max()) + 1
        student, teacher = given.pop("student", "resnet8"), given.pop("teacher", "resnet14")
        student, teacher = _networks(student, teacher if cls.needs_teacher else None, classes, image[0])

        def network(peer: str | None, stream: str) -> Backbone:
            with Streams(0).as_global(stream):
                return build(peer, classes, image[0]) if peer else student.fresh_copy()

        smoothing, size = given.pop("label_smoothing", 0.0), given.pop("batch_size", 6 * cls.images_per_anchor)
        info = Info(classes, labels, image, smoothing, torch.device("cpu"), batch_size=size, steps=100, network=network)
        teachers = [Teacher(teacher, method=_trained_by(name, teacher, info))] if teacher is not None else []
        return cls(student, teachers, info, **{**_gin_parameters(name), **given}).train()

    return method


def _networks(student: str | Backbone, teacher: str | Backbone | None, *of: int) -> tuple[Backbone, Backbone | None]:
    """Networks of names, for (classes, channels), always the same; the global generator continues as after the seed 0."""
    names = [each for each in (student, teacher) if isinstance(each, str)]
    built, state = _built(*of, *names)
    torch.set_rng_state(state)
    fresh = iter(copy.deepcopy(built))
    student, teacher = (next(fresh) if isinstance(each, str) else each for each in (student, teacher))
    return student, teacher


@cache
def _built(classes: int, channels: int, *names: str) -> tuple[list[Backbone], Tensor]:
    """Networks, one after another from the seed 0, and the state of the generator behind them; drawing them takes a while."""
    torch.manual_seed(0)
    built = [
        FourStages(classes=classes, channels=channels) if name == "four_stages" else build(name, classes, channels)
        for name in names
    ]
    return built, torch.get_rng_state()


def _trained_by(name: str, teacher: Backbone, info: Info) -> Method | None:
    """A method around the teacher like the one that trains it, where the gin file of the method that it teaches names one."""
    binding = bindings.of_method(name).get("Teaching.method")
    if binding is None:
        return None
    cls = class_of(bindings.method_source(binding.value))
    above = [Teacher(teacher)] if cls.needs_teacher else []
    return cls(teacher, above, info, **_gin_parameters(binding.value))


@pytest.fixture
def gin_parameters() -> Callable[[str], dict[str, object]]:
    """What the gin file of a method or control binds."""
    return _gin_parameters


def _gin_parameters(name: str) -> dict[str, object]:
    """Read without gin: but for `include 'method/NAME.gin'` the file is Python that assigns literals."""
    text = places_.member("method", name).read_text()
    found: dict[str, object] = {}
    for base in re.findall(r"^include 'method/(\w+)\.gin'$", text, flags=re.MULTILINE):
        found |= _gin_parameters(base)
    for statement in ast.parse(re.sub(r"^include .*$", "", text, flags=re.MULTILINE)).body:
        assert isinstance(statement, ast.Assign)
        configurable, _, parameter = ast.unparse(statement.targets[0]).partition(".")
        if configurable not in ("Search", "Control", "Teaching"):
            found[parameter] = ast.literal_eval(statement.value)
    return found


@pytest.fixture
def batch() -> Callable[..., Batch]:
    """A batch for a method: random images of `anchors` random places and of what the method samples around them, in all views."""

    def draw(method: Method, anchors: int = 6, step: int = 0, identical: bool = False, progress: float = 0.0) -> Batch:
        streams = Streams(3).within(step)
        labels = method.info.train_labels
        places = torch.randperm(len(labels), generator=streams("order"))[:anchors]
        index = method.sample_after(None, places, streams).repeat(len(method.views))
        images = torch.randn(len(index), *method.info.image_shape, generator=streams("augment"))
        images = torch.ones_like(images) if identical else images
        return Batch(
            *(images, labels[index], index, step, streams),
            progress=progress, phase_progress=progress, view_count=len(method.views),
        )  # fmt: skip

    return draw


@pytest.fixture
def sgd() -> SGD:
    """The recipe's settings of the optimiser."""
    return SGD(lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=False)


@pytest.fixture
def updater(sgd) -> Callable[..., Update]:
    """What the loop makes for a method in its one phase."""

    def make(method: Method, clip_norm: float = 0.0) -> Update:
        parameters = [p for p in method.parameters() if p.requires_grad]
        optimisers = method.optimisers(parameters, sgd)
        update = Update(parameters, optimisers, Share(), lambda gradients: None, clip_norm)
        update.set_rate(sgd.lr)
        return update

    return make


@pytest.fixture
def take() -> Callable[..., Any]:
    """Takes a step of a method as the loop does, and returns its terms."""

    def step(method: Method, update: Update, batch: Batch) -> Any:
        terms = method.losses(batch)
        update.loss = update.total(terms)
        method.update(terms, update)
        method.after_step(batch)
        return terms

    return step


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


@pytest.fixture
def result() -> Callable[..., dict[str, Any]]:
    """A result like a finished run's; keywords, with `__` for the dot, change or add keys; `taught` adds a teacher."""

    def make(
        method: str = "ce", seed: int = 0, accuracy: float | None = 50.0, taught: bool = False, **changes: Any
    ) -> dict:
        base: dict[str, Any] = {
            **{
                "run": f"{method}{seed}",
                "status": "finished",
                "method": method,
                "method.parameters": "{}",
                "seed": seed,
            },
            **{"dataset": "digits", "student": "cnn", "teacher": None, "recipe": "short", "overrides": "{}"},
            **{"protocol": "1f9c20", "accuracy.last": accuracy, "accuracy.best_val": None, "images_seen": 14370},
            **{"seconds.train": 12.5, "cost.images_per_second": 1149.6, "data.sha256": "d" * 64},
            **{
                "provenance.clean": True,
                "provenance.device": "cpu",
                "provenance.command": f"kdbench run methods={method}",
            },
        }
        base |= TEACHER if taught else {}
        return base | {key.replace("__", "."): value for key, value in changes.items()}

    return make


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Path]:
    """Writes results as run folders and returns the folder of all runs."""

    def put(*results: dict[str, Any]) -> Path:
        runs = tmp_path / "runs"
        for one in results:
            (runs / one["run"]).mkdir(parents=True, exist_ok=True)
            (runs / one["run"] / "result.json").write_text(json.dumps(one))
        return runs

    return put


@pytest.fixture(scope="module")
def few_test_images() -> Iterator[None]:
    """Digits with 64 test images instead of 1,707, which take a third of a run of a few steps."""
    read = digits.read

    def fewer(source: str, folder: Path | None) -> Arrays:
        whole = read(source, folder)
        some = slice(None, None, len(whole.test_labels) // 64)  # they are in the order of their labels
        return replace(whole, test_images=whole.test_images[some][:64], test_labels=whole.test_labels[some][:64])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "read", fewer)
        readers.read_once.cache_clear()
        yield
    readers.read_once.cache_clear()


@pytest.fixture(scope="session")
def cats_and_dogs() -> Callable[..., Path]:
    """Makes class folders of image files and returns their root.

    Arguments: the root, and the numbers of images of each class for training and the test. Keywords: `image`, which makes the
    image of a number (random pixels by default), `ending`, and the `options` of saving it.
    """
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)

    def random(number: int) -> Any:
        return Image.fromarray(draw.integers(0, 256, (10 + number, 12, 3), dtype=np.uint8))

    def make(
        root: Path, train: int, test: int, image: Callable = random, ending: Callable = lambda number: "png",
        options: Callable = lambda number: {},
    ) -> Path:  # fmt: skip
        for part, count in (("train", train), ("test", test)):
            for name in ("cat", "dog"):
                (root / part / name).mkdir(parents=True)
                for number in range(count):
                    image(number).save(root / part / name / f"{number}.{ending(number)}", **options(number))
        return root

    return make


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
