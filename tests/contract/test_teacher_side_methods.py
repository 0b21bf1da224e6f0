"""Methods that ask for more of the teacher than logits and maps: its classifier, its pre-activations, its normalisation."""

import pytest


@pytest.mark.parametrize("name", ["srrl", "simkd", "ofd", "ab"])
def test_widths_of_the_networks_may_differ(make, batch, name):
    method = make(name, teacher="resnet8x4")
    phase = method.phases()[0]
    losses = (phase.losses or method.losses)(batch(method))
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    first = next(method.student.parameters())
    assert first.grad.abs().max() > 0
