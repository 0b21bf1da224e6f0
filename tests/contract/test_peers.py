"""Networks that are trained together with the student: dml."""

import gin
import pytest
import torch

from kdbench import methods
from kdbench.backbones import registry
from kdbench.config import settings
from kdbench.config.settings import Dataset, Split
from kdbench.data import task as tasks
from kdbench.errors import UserError
from kdbench.measures.cost import PeakMemory
from kdbench.method import Method
from kdbench.run import prepare
from kdbench.run.checkpoint import weights_sha256
from kdbench.run.prepare import Ready
from kdbench.run.teacher import LoadedTeacher
from kdbench.store.folder import CHECKPOINT
from kdbench.streams import Streams

DIGITS = Dataset(source="digits", mean=(0.3,), std=(0.35,), mirrored=False)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("cohort", "peers"), [("(None,)", ["resnet8"]), ("('resnet14', None)", ["resnet14", "resnet8"])]
)
def test_peers_are_counted_and_shown_as_exits_and_dropped(run_all, tmp_path, cohort, peers):
    (result,) = run_all(tmp_path, "methods=dml", f"DML.cohort={cohort}")
    assert result["status"] == "finished", result.get("error")
    assert result["passes.student"] == result["images_seen"] > 0
    assert result["passes.peers"] == len(peers) * result["passes.student"]
    assert result["passes.teachers"] == 0
    exits = {f"exits.peer{number}" for number in range(1, len(peers) + 1)}
    assert {key for key in result if key.startswith("exits.")} == {*exits, "exits.ensemble"}
    assert {key for key in result if key.startswith("cost.flops.")} >= {"cost.flops.peer1"}
    size = {name: sum(p.numel() for p in registry.build(name, 10, 1).parameters()) for name in ("resnet8", "resnet14")}
    assert result["cost.parameters"] == size["resnet8"]
    assert result["cost.parameters_training"] == size["resnet8"] + sum(size[name] for name in peers)
    content = torch.load(tmp_path / result["run"] / CHECKPOINT, weights_only=True)
    assert content["student"].keys() == registry.build("resnet8", 10, 1).state_dict().keys()


class Two(Method):
    def setup(self):
        self.add_peer()
        self.add_peer()


class Taught(Two):
    needs_teacher = True


class Mixed(Method):
    def setup(self):
        self.add_peer("resnet14")
        self.add_peer()


class Drawing(Two):
    """Draws from the global generator before it adds its peers."""

    def setup(self):
        torch.randn(100)
        super().setup()


class Alone(Method):
    pass


@pytest.fixture
def started(plan):
    """The checksums of a method's networks as a run of a seed builds it."""

    def build(cls, seed=3):
        (spec,) = plan("methods=dml", f"seeds={seed}")
        gin.clear_config()
        gin.parse_config(spec.config)
        task = tasks.load(DIGITS, Split(validation=0.2, seed=0), None, CPU)
        teachers = (LoadedTeacher(registry.build("resnet14", 10, 1), None, "", None),) if cls.needs_teacher else ()
        ready = Ready(cls, settings.from_gin(), CPU, PeakMemory(CPU), {}, task, teachers)
        made = prepare.build(spec, ready, Streams(seed))
        return [weights_sha256(network.state_dict()) for network in made.networks()]

    methods.load("dml")  # registers it with gin, which checks the names in a configuration
    yield build
    gin.clear_config()


def test_peers_have_initial_weights_of_their_own_and_the_student_those_it_always_has(started):
    student, first, second = started(Two)
    assert len({student, first, second}) == 3
    assert [student] == started(Alone)
    assert started(Two) == [student, first, second]
    assert not set(started(Two, seed=4)) & {student, first, second}


def test_initial_weights_of_peers_depend_neither_on_a_teacher_nor_on_what_the_method_draws(started):
    networks = started(Two)
    assert started(Taught) == networks
    assert started(Drawing) == networks
    mixed = started(Mixed)
    assert (mixed[0], mixed[2]) == (networks[0], networks[2])
    assert mixed[1] != networks[1]


def test_a_peer_of_no_known_architecture_is_refused(make):
    with pytest.raises(UserError, match="resnet41"):
        make("dml", cohort=("resnet41",))
