"""What a method says of its phases."""

import dataclasses

import pytest

from kdbench.method import Phase


def test_a_method_has_one_phase_that_trains_all_of_it_on_its_losses(make):
    (phase,) = make("ce").phases()
    assert phase == Phase()
    assert (phase.share, phase.losses, phase.trains, phase.rate, phase.on_top) == (None, None, None, "recipe", False)


def test_a_phase_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Phase().share = 0.5


def test_a_phase_is_shown_without_its_parameters(make):
    assert "Parameter" not in repr(Phase("first", 0.5, trains=list(make("ce").parameters())))
