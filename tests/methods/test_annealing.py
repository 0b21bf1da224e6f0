from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench.method import RunError
from kdbench.methods.annealing import annealing_loss, temperature_at


def test_the_loss_of_the_first_phase_is_the_reference(reference):
    case = reference("annealing_phase1")
    given = case.params["temperature"], case.params["max_temperature"]
    case.check(annealing_loss(case.student["student_logits"], case.fixed["teacher_logits"], *given))


def test_the_loss_is_its_definition_and_zero_for_equal_logits():
    z, t = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = np.mean([(a - 0.3 * b) ** 2 for a, b in zip(z.flatten().tolist(), t.flatten().tolist(), strict=True)])
    assert annealing_loss(z, t, 3, 10).item() == pytest.approx(expected, rel=1e-10)
    assert annealing_loss(t, t, 10, 10).item() == 0


def test_temperatures_are_equal_stretches_from_one_to_the_largest():
    steps = [temperature_at(step / 200, 10) for step in range(200)]
    assert steps == [1 + step // 20 for step in range(200)]
    assert temperature_at(0.999999, 3) == 3
    assert temperature_at(0.5, 1) == 1


def test_two_phases_have_two_thirds_and_the_rest_of_the_budget(make, batch, monkeypatch):
    method, ce = make("annealing").eval(), make("ce").eval()
    one = batch(method)
    first, second = method.phases()
    assert (first.share, second.share, first.rate) == (0.6667, None, "recipe")
    z, t = method.student(one.images), method.teacher(one.images)
    for progress, temperature in ((0.0, 1), (0.45, 5), (0.99, 10)):
        terms = first.losses(replace(one, phase_progress=progress))
        assert terms.keys() == {"annealing"}
        assert terms["annealing"].item() == pytest.approx(annealing_loss(z, t, temperature, 10).item(), rel=1e-5)
    monkeypatch.setattr(method, "teach", None)
    assert second.losses(one) == ce.losses(one)


def test_one_schedule_goes_over_both_parts(make, batch, monkeypatch):
    method, ce = make("annealing", restart=False, share=0.5, max_temperature=4).eval(), make("ce").eval()
    assert [phase.share for phase in method.phases()] == [None]
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    for progress, temperature in ((0.0, 1), (0.26, 3), (0.49, 4)):
        terms = method.losses(replace(one, progress=progress))
        assert terms["annealing"].item() == pytest.approx(annealing_loss(z, t, temperature, 4).item(), rel=1e-5)
    monkeypatch.setattr(method, "teach", None)
    assert method.losses(replace(one, progress=0.5)) == ce.losses(one)


def test_values_out_of_range_are_refused(make):
    with pytest.raises(RunError, match=r"Annealing\.share=1 must be above 0 and below 1"):
        make("annealing", share=1.0)
    with pytest.raises(RunError, match=r"Annealing\.max_temperature=0 must be 1 or more"):
        make("annealing", max_temperature=0)
