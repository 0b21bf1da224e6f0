"""The choices of a launch that are not about what is run: what every launcher is given besides runs and folders."""

from __future__ import annotations

from dataclasses import dataclass

from kdbench.config.cluster import Cluster


@dataclass(frozen=True)
class Options:
    """Options of one launch. A launcher is a function `launch(specs, runs, data, options)`.

    Attributes:
        workers: how many runs at a time; None leaves it to the launcher.
        cluster: profile of a cluster, for launchers that submit jobs.
        rerun: whether finished runs are done again.
    """

    workers: int | None = None
    cluster: Cluster | None = None
    rerun: bool = False
