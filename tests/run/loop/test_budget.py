"""How the budget of images is cut into steps and phases."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.errors import RunError
from kdbench.method import Phase
from kdbench.run.loop.budget import Budget


@given(
    epochs=st.floats(0.5, 20),
    images=st.integers(100, 5000),
    batch=st.integers(2, 128),
    group=st.sampled_from([1, 2, 3]),
)
def test_no_method_gets_more_than_the_budget_nor_a_step_less(small, epochs, images, batch, group):
    if epochs * images < batch + group:
        return
    budget = Budget(small.recipe(epochs=epochs, batch_size=batch), images, group)
    seen = budget.steps * budget.per_step
    assert seen <= budget.total < seen + budget.per_step
    assert batch <= budget.per_step < batch + group


def test_an_epoch_is_n_images_whatever_the_sampler_draws(small):
    corsd = Budget(small.recipe(epochs=10, batch_size=128), 45_000, 3)
    plain = Budget(small.recipe(epochs=10, batch_size=128), 45_000, 1)
    assert (corsd.anchors, corsd.per_step) == (43, 129)
    assert corsd.epoch_after(math.ceil(45_000 / 129) - 1) == 1
    assert plain.epoch_after(math.ceil(45_000 / 128) - 1) == 1
    assert corsd.epoch_after(corsd.steps - 1) == plain.epoch_after(plain.steps - 1) == 10


def test_a_budget_below_one_step_is_an_error(small):
    with pytest.raises(RunError, match="less than one step of 16"):
        Budget(small.recipe(epochs=0.1), 100, 1)


def stretches(budget):
    return [(stretch.phase.name, stretch.first, stretch.end) for stretch in budget.stretches]


def test_a_method_without_phases_has_one(small):
    budget = Budget(small.recipe(), 72, 1)
    assert stretches(budget) == [("training", 0, 13)]
    assert budget.steps == budget.paid == 13


def test_phases_share_the_budget(small):
    phases = Phase("first", 0.25), Phase("second"), Phase("third", 0.5)
    budget = Budget(small.recipe(epochs=10), 160, 1, phases=phases)
    assert stretches(budget) == [("first", 0, 25), ("second", 25, 50), ("third", 50, 100)]
    assert (budget.steps, budget.paid, budget.total, budget.epochs) == (100, 100, 1600, 10)
    assert [budget.stretch(step).phase.name for step in (0, 24, 25, 49, 50, 99)] == [
        "first", "first", "second", "second", "third", "third",
    ]  # fmt: skip
    assert [budget.stretch(step).progress(step) for step in (0, 24, 25, 50, 99)] == [0, 0.96, 0, 0, 0.98]


@given(
    epochs=st.floats(2, 20),
    images=st.integers(500, 5000),
    share=st.floats(0.1, 0.9),
    on_top=st.booleans(),
)
def test_phases_never_take_more_than_the_budget_and_what_is_on_top_of_it(small, epochs, images, share, on_top):
    plain = Budget(small.recipe(epochs=epochs), images, 1)
    budget = Budget(
        small.recipe(epochs=epochs), images, 1, phases=(Phase("first", share, on_top=on_top), Phase("rest"))
    )
    first, rest = budget.stretches
    assert (first.first, first.end, rest.end) == (0, rest.first, budget.steps)
    assert abs(first.end - share * plain.paid) <= 0.5
    assert budget.paid == plain.steps
    assert budget.steps == plain.steps + on_top * first.end
    seen = budget.steps * budget.per_step
    assert seen <= budget.total < seen + budget.per_step
    assert budget.epoch_after(budget.steps - 1) == budget.epochs


def test_what_is_on_top_counts_as_epochs_too(small):
    budget = Budget(small.recipe(epochs=10), 160, 1, phases=(Phase("first", 0.25, on_top=True), Phase("rest")))
    assert stretches(budget) == [("first", 0, 25), ("rest", 25, 125)]
    assert (budget.paid, budget.total, budget.epochs) == (100, 2000, 13)
    assert budget.epoch_after(9) == 1
    assert budget.epoch_of(124) == 13


def test_a_control_with_a_longer_budget_has_longer_phases(small):
    budget = Budget(small.recipe(epochs=10), 160, 1, 3.0, (Phase("first", 0.25), Phase("rest")))
    assert stretches(budget) == [("first", 0, 75), ("rest", 75, 300)]


@pytest.mark.parametrize(
    "phases",
    [
        (),
        (Phase("first", 0.5), Phase("second", 0.5)),
        (Phase("first"), Phase("second")),
        (Phase("first", 0.5), Phase("second", 0.5), Phase("rest")),
        (Phase("first", 0.0), Phase("rest")),
        (Phase("first", -0.1), Phase("rest")),
        (Phase("first", 0.5), Phase("rest", on_top=True)),
    ],
)
def test_phases_that_do_not_share_the_budget_out_are_refused(small, phases):
    with pytest.raises(RunError, match=r"the phases .* must have shares"):
        Budget(small.recipe(), 72, 1, phases=phases)


def test_a_phase_without_a_step_is_refused(small):
    with pytest.raises(
        RunError, match=r"13 steps is too short for the phases \(first 0.01, rest\): one of them has no step"
    ):
        Budget(small.recipe(), 72, 1, phases=(Phase("first", 0.01), Phase("rest")))


def test_the_rate_of_a_phase_is_the_schedule_over_its_length_or_constant(small):
    sgd, phases = small.RATE, (Phase("first", 0.25, rate="constant"), Phase("rest"))
    budget = Budget(small.recipe(epochs=10), 160, 1, phases=phases)
    rates = [budget.rate(step, sgd) for step in range(100)]
    assert rates[:26] == pytest.approx([0.05] * 26)
    assert rates[25:] == pytest.approx([0.05 * 0.5 * (1 + math.cos(math.pi * k / 75)) for k in range(75)])


def test_the_rate_warms_up_once_at_the_start_of_training(small):
    phases = Phase("first", 0.25, rate="constant"), Phase("rest", rate="constant")
    budget = Budget(small.recipe(epochs=10, warmup=1.0), 160, 1, phases=phases)
    rates = [budget.rate(step, small.RATE) for step in range(100)]
    assert rates == pytest.approx([0.05 * min(1, (step + 1) / 10) for step in range(100)])
