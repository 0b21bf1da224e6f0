"""What Optuna suggests from the trials that it is told."""

from statistics import median

from kdbench.config import resolve
from kdbench.tune.suggest import suggest


def test_the_sampler_learns_from_the_trials_it_is_told():
    space = resolve.search_space("kd")
    values = [2.0**exponent for exponent in range(5)] * 2

    def told(accuracy):
        return [
            {"status": "finished", "parameters": {"temperature": t, "kd_weight": 0.5}, "accuracy.val": accuracy(t)}
            for t in values
        ]

    low = [suggest(space, told(lambda t: -t), f"study {i}")["temperature"] for i in range(20)]
    high = [suggest(space, told(lambda t: t), f"study {i}")["temperature"] for i in range(20)]
    assert median(low) < 3 < 6 < median(high)
