"""`kdbench latency`: the time of a forward pass of the deployed networks of finished runs, on this machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdbench.cli import folders
from kdbench.cli.console import console
from kdbench.cli.printing import print_text, warn
from kdbench.errors import UserError, loading_torch

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from kdbench.run.latency import Deployed, Latency

SUMMARY = "measure the latency of the deployed networks of finished runs on this machine"
DETAILS = """\
SELECTION: run ids or prefixes, or filters: methods=A,B dataset=D student=S seeds=0,1; 'all'.
  kdbench latency methods=ce,kd seeds=0
  kdbench latency all --device cuda --json
Batches of 1 and 64 images in float32: the median of 50 forward passes, and the first and third quartile. The networks take turns,
so that what else the machine does falls on all alike. Latencies are not stored: compare only those that one command printed.
Exit status: 1 if a run could not be measured."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="all|SELECTION", help="which runs, see below")
    folders.add_runs(parser)
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, … (default: a GPU if there is one)")
    parser.add_argument("--json", action="store_true", help="print an object")


def run(arguments: argparse.Namespace) -> int:
    runs = folders.runs(arguments)
    selected = _selected(arguments.words, runs)
    with loading_torch():
        from kdbench.run import latency, transfer
    from kdbench.measures.load import OtherProcesses

    device = transfer.device(arguments.device)
    networks = _loaded(selected, runs, device)
    others = OtherProcesses()
    measured = latency.measure(networks, device) if networks else {}
    machine = latency.machine(device) | {"other_processes_cpu_s": others.seconds()}
    if arguments.json:
        rows = [
            {"run": id_, "batch": batch, **{f"{name}_ms": ms for name, ms in each._asdict().items()}}
            for id_, by_batch in measured.items()
            for batch, each in by_batch.items()
        ]
        print_text(json.dumps({**machine, "latencies": rows}, indent=1))
    elif measured:
        _print(measured, machine)
    return int(len(networks) < len(selected))


def _selected(words: Sequence[str], runs: Path) -> list[str]:
    from kdbench.cli import run_filter, states
    from kdbench.launch import status

    runs_filter = run_filter.parse(words)
    if runs_filter.is_empty:
        raise UserError("specify the runs to measure: run ids or prefixes, methods=A,B, student=S, seeds=0,1, or 'all'")
    statuses = runs_filter.select(status.read(runs, runs_filter.ids(runs)))
    finished = [each.id for each in statuses if each.state == "done"]
    if not finished:
        raise UserError(f"no finished run to measure: {states.counts(statuses) if statuses else 'no run matches'}")
    return finished


def _loaded(selected: Sequence[str], runs: Path, device: torch.device) -> dict[str, Deployed]:
    from kdbench.run import fault, latency

    networks = {}
    for id_ in selected:
        try:
            networks[id_] = latency.deployed(runs / id_, device)
        except Exception as error:  # of a folder or a network that may be someone else's
            warn(f"{id_} was not measured: {fault.sentence(error)}")
    return networks


def _print(measured: Mapping[str, Mapping[int, Latency]], machine: Mapping[str, object]) -> None:
    from rich.table import Table

    batches = list(next(iter(measured.values())))
    table = Table("run", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for batch in batches:
        table.add_column(f"batch {batch}: ms", justify="right", no_wrap=True)
        table.add_column("quartiles", justify="right", no_wrap=True)
    for id_, by_batch in measured.items():
        cells = [(f"{each.median:.3g}", f"{each.lower:.3g} – {each.upper:.3g}") for each in by_batch.values()]
        table.add_row(id_, *(cell for pair in cells for cell in pair))
    threads = f", threads: {machine['threads']}" if "threads" in machine else ""
    console().print(f"{machine['device']}{threads}, torch {machine['torch']}, float32")
    console().print(table)
    used = machine["other_processes_cpu_s"]
    if isinstance(used, float) and used > 1:
        warn(f"other processes used {used:.0f} CPU seconds meanwhile; measure again on an idle machine")
