import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdbench.config.schedules import Cosine, MultiStep, OneCycle


@given(final=st.floats(0, 1), progress=st.floats(0, 1))
def test_cosine_falls_from_one_to_final(final, progress):
    schedule = Cosine(final=final)
    assert schedule(0.0) == 1.0
    assert schedule(1.0) == pytest.approx(final)
    assert final - 1e-12 <= schedule(progress) <= 1 + 1e-12


def test_multi_step_falls_at_each_milestone_and_not_before():
    schedule = MultiStep(milestones=(0.5, 0.75), gamma=0.1)
    assert schedule(math.nextafter(0.5, 0)) == 1.0
    assert schedule(0.5) == pytest.approx(0.1)
    assert schedule(0.75) == pytest.approx(0.01)


@pytest.mark.parametrize("milestones", [(0.75, 0.5), (0.0, 0.5), (0.5, 1.0)])
def test_multi_step_refuses_milestones_out_of_order_or_range(milestones):
    with pytest.raises(ValueError, match="milestones"):
        MultiStep(milestones=milestones, gamma=0.1)


def test_one_cycle_is_torchs_one_cycle():
    steps, peak = 200, 0.1
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=peak, total_steps=steps + 1, cycle_momentum=False)
    # torch puts its peak at step rise·total − 1; with the same place the two curves must agree at every step.
    ours = OneCycle(rise=(0.3 * (steps + 1) - 1) / steps, start_divisor=25, final_divisor=1e4)
    for step in range(steps + 1):
        assert peak * ours(step / steps) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        if step < steps:
            optimiser.step()
            theirs.step()
