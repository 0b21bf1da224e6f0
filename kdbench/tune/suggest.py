"""The next trial of a study, by Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from kdbench.config.space import Dimension, Space
from kdbench.errors import UserError

STARTUP = 5
"""Finished trials before the estimator takes over from random draws: the gin values and four more."""


def check_optuna() -> None:
    """
    Raises:
        UserError: Optuna is not installed.
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError("kdbench tune needs Optuna, which is not installed: pip install 'kdbench[tune]'") from None


def suggest(space: Space, trials: Sequence[Mapping[str, Any]], study: str) -> dict[str, Any]:
    """Values for the trial after `trials`, by parameter.

    A pure function: a new sampler is fed the stored trials and seeded with the study and the trial's number, so that an
    interrupted study continues exactly as an uninterrupted one does.

    Args:
        space: the parameters to choose and their ranges.
        trials: all so far as `kdbench.tune.study` stores them; failed ones are left out.
        study: the study's id.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = int.from_bytes(hashlib.sha256(f"{study}/{len(trials)}".encode()).digest()[:4], "big")
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=False)
    memory = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {name: _distribution(dimension) for name, dimension in space.items()}
    for trial in trials:
        if trial["status"] == "finished":
            # A gin value may lie outside the space (None, for instance), and Optuna accepts only values inside it.
            values = trial["parameters"]
            inside = {name: values[name] for name in space if name in values and space[name].holds(values[name])}
            memory.add_trial(
                optuna.trial.create_trial(
                    params=inside,
                    distributions={name: distributions[name] for name in inside},
                    value=trial["accuracy.val"],
                )
            )
    asked = memory.ask(distributions).params
    return {name: dimension.rounded(asked[name]) for name, dimension in space.items()}


def _distribution(dimension: Dimension) -> Any:
    from optuna import distributions

    if dimension.kind == "choice":
        return distributions.CategoricalDistribution(dimension.options)
    low, high = dimension.options
    if dimension.kind == "int":
        return distributions.IntDistribution(low, high)
    return distributions.FloatDistribution(low, high, log=dimension.kind == "log")
