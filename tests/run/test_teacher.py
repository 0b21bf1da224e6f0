import re
from types import SimpleNamespace

import pytest
import torch

from kdbench.backbones import registry
from kdbench.errors import RunError
from kdbench.plan import expand, request
from kdbench.run import teacher
from kdbench.run.checkpoint import weights_sha256

TASK = SimpleNamespace(classes=10, image_shape=(1, 8, 8), digest="0" * 64)


def spec(path):
    (found,) = expand.plan(request.parse(["methods=kd", f"teacher={path}"]))
    return found


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}]
)
def test_weights_from_outside_are_recognised_by_their_names_and_shapes(tmp_path, wrap):
    state = registry.build("resnet14", 10, 1).state_dict()
    torch.save(wrap(state), tmp_path / "w.pth")
    (loaded,) = teacher.load(spec(tmp_path / "w.pth"), tmp_path, TASK)
    assert loaded.sha256 == weights_sha256(state)
    assert loaded.run is None
    assert torch.equal(loaded.network.fc.weight, state["fc.weight"])


def test_weights_of_another_shape_name_the_nearest_backbone_and_the_keys(tmp_path):
    state = registry.build("resnet14", 10, 1).state_dict()
    state["stem.weight"] = state.pop("conv1.weight")
    state["fc.weight"] = torch.zeros(7, 64)
    torch.save(state, tmp_path / "w.pt")
    expected = (
        "do not fit any backbone with 10 classes; nearest is resnet14: "
        "missing conv1.weight; unexpected stem.weight; of another shape fc.weight"
    )
    with pytest.raises(RunError, match=re.escape(expected)):
        teacher.load(spec(tmp_path / "w.pt"), tmp_path, TASK)


class Malicious:
    def __reduce__(self):
        return (print, ("code from a weight file ran",))


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_a_file_that_is_torn_or_holds_code_is_refused(tmp_path, capsys, content):
    path = tmp_path / "w.pt"
    if content is None:
        torch.save({"model": Malicious()}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(RunError, match=r"the weights in 'w.pt' cannot be read"):
        teacher.load(spec(path), tmp_path, TASK)
    assert "ran" not in capsys.readouterr().out


def test_an_accuracy_that_is_not_the_claimed_one_is_refused():
    claimed = teacher.LoadedTeacher(registry.build("resnet8", 10, 1), "ce-x", "", 74.0)
    claimed.confirm(74.2)
    with pytest.raises(RunError, match=r"ce-x scores 70.27 % on the test set, but its run recorded 74.00 %"):
        claimed.confirm(70.27)


def test_the_checksum_is_of_the_values_not_of_the_file(tmp_path):
    state = registry.build("resnet8", 10, 1).state_dict()
    reordered = dict(reversed(list(state.items())))
    assert weights_sha256(state) == weights_sha256(reordered)
    changed = {k: v.clone() for k, v in state.items()}
    changed["fc.bias"][0] += 1e-6
    assert weights_sha256(changed) != weights_sha256(state)
