"""`kdbench show`: the resolved configuration."""

from __future__ import annotations

import argparse

SUMMARY = "the resolved configuration, each value with the file that set it"
DETAILS = """\
selections (each takes a comma list; the plan is their product):
  methods=A,B|all   dataset=D   student=S   teacher=T|PATH.pt   recipe=R   seeds=0,1,2   sweep=F
and one value each:
  executor=inline|local|slurm   workers=N (local: runs at a time)   cluster=PROFILE (slurm; Cluster.time=60 too)
  gpus=N (processes that share each batch, a GPU each)   log=tensorboard (event files in the runs' folders)
bindings (anything with a dot is a gin parameter and is the same for all methods that have it):
  Train.epochs=5   SGD.lr=0.05   KD.temperature=2   Machine.device=cuda:1

without any selection: all methods on scikit-learn's digits. See what there is with kdbench list, and every value with
kdbench show."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="key=value", help="as in kdbench run")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.cli.commands import listing_old as show
    from kdbench.plan import request as request_

    show.print_configuration(request_.parse(arguments.words))
    return 0
