"""What methods that mix the images of a batch draw for it."""

import dataclasses

import numpy as np
import pytest
import torch

from kdbench.method import Share
from kdbench.method.mixing import drawn_share, partners_of
from kdbench.streams import Streams


def test_shares_and_partners_are_drawn_from_the_step(make, batch):
    one = batch(make("mixup"))
    steps = [dataclasses.replace(one, streams=Streams(0).within(step)) for step in range(300)]
    drawn = np.array([drawn_share(each, 1.0) for each in steps])
    assert drawn_share(one, 1.0) == drawn_share(one, 1.0)
    assert drawn.mean() == pytest.approx(0.5, abs=0.07)
    assert drawn.std() == pytest.approx(12**-0.5, abs=0.03)
    fixed = [partners_of(each, torch.arange(6))[0].eq(torch.arange(6)).sum().item() for each in steps]
    assert np.mean(fixed) == pytest.approx(1.0, abs=0.25)  # a permutation has one fixed point on average


def test_partners_are_those_of_the_whole_batch(make, batch):
    class Half(Share):
        """The second of two ranks, which has the rows from 3 on."""

        def gather(self, x):
            return torch.cat([x - 3, x])

        def own(self, whole):
            return whole[3:]

    one = batch(make("mixup"))
    (whole,) = partners_of(one, torch.arange(6))
    half = dataclasses.replace(one, labels=one.labels[3:], share=Half())
    assert torch.equal(partners_of(half, torch.arange(3, 6))[0], whole[3:])
