"""The resources that a job requests from a SLURM cluster: the profile slurm/NAME.gin as one checked object. No torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gin

from kdbench.errors import hint, nearest, require

_MEMORY = re.compile(r"(\d+)([KMGT]?)")
_DAYS = re.compile(r"(?:(?P<d>\d+)-(?P<h>\d+)(?::(?P<m>\d+)(?::(?P<s>\d+))?)?)")
_HOURS = re.compile(r"(?:(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d+))|(?P<only>\d+)")

OURS = {
    **{"partition": "Cluster.partition", "account": "Cluster.account", "qos": "Cluster.qos", "time": "Cluster.time"},
    **{"constraint": "Cluster.constraint", "mem": "Cluster.memory", "cpus-per-task": "Cluster.cpus"},
    **dict.fromkeys(
        ("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"), "Cluster.gpus, gpu_type and gpu_option"
    ),
    "signal": "Cluster.signal_delay_s",
    **dict.fromkeys(
        ("array", "dependency", "error", "job-name", "nodes", "ntasks-per-node", "open-mode", "output", "requeue"),
        "kdbench",
    ),
}
"""The options of sbatch that `Cluster.options` cannot give, and what gives them."""
GPU_OPTIONS = ("gpus-per-node", "gres")
"""The options of sbatch by which GPUs can be requested."""


@gin.configurable
@dataclass(frozen=True)
class Cluster:
    """The resources of each job, and the number of jobs; not part of what defines a result.

    Attributes:
        partition, account, qos, constraint: options of sbatch of the same name; None: not passed.
        gpus: GPUs of each job; a run over several GPUs (`Machine.gpus`) requests its own number. 0: jobs on CPUs.
        gpu_type: the type of GPU, such as 'a100'; None: any.
        gpu_option: one of `GPU_OPTIONS`, which requests the GPUs; None: none does, because a partition or constraint gives
            them.
        gpus_per_node: GPUs of one node (without GPUs: processes per node); a run over more uses several nodes.
        cpus: CPU cores of each job, multiplied by the number of GPUs for a run over several.
        memory: memory of each job, such as '16G', multiplied in the same way; 0: all of a node; None: the partition's
            default.
        time: time limit in minutes or as for sbatch ('1-12:00:00'); a job that reaches it is requeued and resumes.
        array_parallelism: number of jobs of one array that run at a time.
        runs_per_job: runs of one job, one after the other on each GPU.
        signal_delay_s: seconds before the limit at which a job is signalled to save its state.
        max_requeues: how often a job may reach its time limit and resume.
        options: further options of sbatch by name, such as {'mail-type': 'END'}; True for one without a value.
        setup: shell lines before the job's command.
        python: the command of the interpreter in jobs; None: the one that submits.
    """

    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    gpus: int
    gpus_per_node: int
    cpus: int
    memory: int | str | None
    time: int | str
    array_parallelism: int
    runs_per_job: int
    signal_delay_s: int
    max_requeues: int
    options: Any
    setup: tuple[str, ...]
    python: str | None
    # Unlike the others with a default, because copies of default.gin from before they existed do not set them.
    gpu_type: str | None = None
    gpu_option: str | None = "gpus-per-node"

    def __post_init__(self) -> None:
        for name in ("partition", "account", "qos", "constraint", "python", "gpu_type"):
            value = getattr(self, name)
            require(value is None or bool(value.strip()), f"Cluster.{name} must be a name, or None")
        for name, least in (
            ("gpus", 0),
            ("gpus_per_node", 1),
            ("cpus", 1),
            ("array_parallelism", 1),
            ("runs_per_job", 1),
            ("max_requeues", 0),
        ):
            require(getattr(self, name) >= least, f"Cluster.{name} must be at least {least}, not {getattr(self, name)}")
        require(
            self.memory in (None, 0) or (isinstance(self.memory, str) and _MEMORY.fullmatch(self.memory) is not None),
            f"Cluster.memory must be a number with K, M, G or T, such as '16G', or 0 for all of a node, not '{self.memory}'",
        )
        require(
            self.gpu_option is None or self.gpu_option in GPU_OPTIONS,
            f"Cluster.gpu_option must be {' or '.join(map(repr, GPU_OPTIONS))}, or None, not {self.gpu_option!r}"
            + hint(nearest(str(self.gpu_option), GPU_OPTIONS)),
        )
        require(
            self.gpu_type is None or self.gpu_option is not None,
            f"Cluster.gpu_type={self.gpu_type} has no effect with Cluster.gpu_option=None; leave one of them out",
        )
        require(self.minutes >= 1, f"Cluster.time must be at least 1 minute, not {self.time!r}")
        require(
            1 <= self.signal_delay_s < 60 * self.minutes,
            f"Cluster.signal_delay_s must be at least 1 and below the time limit ({60 * self.minutes} seconds)",
        )
        self._check_options()

    def _check_options(self) -> None:
        good = isinstance(self.options, Mapping) and all(isinstance(name, str) for name in self.options)
        require(good, f"Cluster.options takes options by name, such as {{'mail-type': 'END'}}, not {self.options!r}")
        for name, value in self.options.items():
            bare = name.lstrip("-").replace("_", "-")
            require(bare not in OURS, f"Cluster.options cannot give '{name}': it is set by {OURS.get(bare)}")
            require(
                not (bare.startswith(("gres", "tres-per-")) and "gpu" in str(value)),
                f"Cluster.options cannot give '{name}': '{value}': GPUs are requested by Cluster.gpus and gpu_type, "
                "and with Cluster.gpu_option='gres' by the option --gres",
            )
            require(name == bare != "", f"Cluster.options takes names as in '{bare or 'mail-type'}', not '{name}'")
            require(
                value is True or (isinstance(value, (str, int)) and value is not False),
                f"Cluster.options['{name}'] takes a string, a number, or True for an option without a value, not {value!r}",
            )

    @property
    def minutes(self) -> int:
        """The time limit in whole minutes, rounded up; ValueError if it is none."""
        if isinstance(self.time, int):
            return self.time
        match = _DAYS.fullmatch(self.time) or _HOURS.fullmatch(self.time)
        require(match is not None, f"Cluster.time takes minutes or 'days-hours:minutes:seconds', not '{self.time}'")
        assert match is not None
        parts = {name: int(value or 0) for name, value in match.groupdict().items()}
        seconds = 60 * (60 * (24 * parts.get("d", 0) + parts["h"]) + parts["m"] + parts.get("only", 0)) + parts["s"]
        return -(-seconds // 60)

    def nodes_for(self, processes: int) -> int:
        """The nodes of a run over so many GPUs; ValueError if they do not share them evenly."""
        nodes = -(-processes // self.gpus_per_node)
        require(
            processes % nodes == 0,
            f"gpus={processes} cannot be shared evenly by {nodes} nodes of {self.gpus_per_node} GPUs "
            f"(Cluster.gpus_per_node); pass {processes // nodes * nodes} or {-(-processes // nodes) * nodes}",
        )
        return nodes

    def options_with(self, gpus: int) -> dict[str, Any]:
        """The further options of sbatch, including the request for so many GPUs on each node."""
        options = dict(self.options)
        if gpus and self.gpu_option:
            request = ":".join(filter(None, (self.gpu_type, str(gpus))))
            if self.gpu_option == "gres":
                request = ",".join(filter(None, (f"gpu:{request}", options.get("gres"))))
            options[self.gpu_option] = request
        return options

    def memory_of(self, times: int) -> str | None:
        """The memory of a job that needs so many times as much."""
        if self.memory is None:
            return None
        # All of a node stays all of a node: sbatch's --mem=0.
        number, unit = _MEMORY.fullmatch(str(self.memory)).groups()  # type: ignore[union-attr]  # checked above
        return f"{int(number) * times}{unit}"
