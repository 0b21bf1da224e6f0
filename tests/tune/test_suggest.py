"""What Optuna suggests from stored trials."""

from statistics import median

from kdbench.config import bindings
from kdbench.tune.suggest import suggest


def test_the_sampler_learns_from_stored_trials():
    space = bindings.search_space("kd")
    values = [2.0**exponent for exponent in range(5)] * 2

    def trials(accuracy):
        return [
            {"status": "finished", "parameters": {"temperature": t, "kd_weight": 0.5}, "accuracy.val": accuracy(t)}
            for t in values
        ]

    low = [suggest(space, trials(lambda t: -t), f"study {i}")["temperature"] for i in range(20)]
    high = [suggest(space, trials(lambda t: t), f"study {i}")["temperature"] for i in range(20)]
    assert median(low) < 3 < 6 < median(high)
