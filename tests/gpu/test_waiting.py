"""A step does not wait for the GPU, except where it looks at the loss."""

import warnings

import pytest
import torch

from kdbench.config import bindings, places
from kdbench.errors import UserError
from kdbench.run.execute import run
from kdbench.run.loop import train
from kdbench.run.loop.epochs import Epochs

MIXED, CROPPED = ["Mix.mixup=0.2", "Mix.cutmix=1.0"], ["ResizedCrop.min_area=0.2"]


@pytest.fixture
def waits(monkeypatch):
    """The places in the code that have waited for the GPU, by step; and the steps that look at the loss."""
    by_step, looks, steps, means = (
        {},
        {0},
        train.steps,
        Epochs.means,
    )  # the loss of the first step is looked at on its own

    def watched(*arguments):
        before = 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                for batch in steps(*arguments):
                    yield batch
                    new = [each for each in caught[before:] if "synchronizing CUDA operation" in str(each.message)]
                    by_step[batch.step] = [f"{each.filename}:{each.lineno}" for each in new]
                    before = len(caught)
            finally:
                torch.cuda.set_sync_debug_mode("default")

    def noted(self, step):
        looks.add(step)
        return means(self, step)

    monkeypatch.setattr(train, "steps", watched)
    monkeypatch.setattr(Epochs, "means", noted)
    return by_step, looks


@pytest.mark.parametrize(
    "name", [name for name in sorted(places.sources()) if "Teaching.method" not in bindings.of_method(name)]
)
@pytest.mark.parametrize("augmented", [[], MIXED, CROPPED], ids=["plain", "mixed", "cropped"])
def test_no_step_waits_but_those_that_look(plan, waits, figure, tmp_path, name, augmented):
    by_step, looks = waits
    try:
        specs = plan(f"methods={name}", "Train.epochs=12", "Machine.checkpoint_every=1000000", *augmented)
    except UserError as error:
        pytest.skip(str(error))  # not all methods can be trained on mixed images
    for spec in specs:
        by_step.clear()
        looks.clear()
        result = run(spec, tmp_path, None)
        assert result["status"] == "finished", result["error"]
    others = {
        step: found for step, found in by_step.items() if step not in {0, *looks}
    }  # the first loss is looked at too
    if not augmented:
        figure(
            f"{name}: waits in {len(others)} steps that do not look at the loss", str(sum(map(len, others.values())))
        )
    assert len(others) > len(looks)
    assert not {place for found in others.values() for place in found}
    assert by_step[max(looks)], "torch counts no waiting at all"
