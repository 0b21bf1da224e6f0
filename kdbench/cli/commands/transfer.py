"""`kdbench transfer`: how the frozen features of finished runs do on another dataset."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench import words as words_
from kdbench.cli import folders
from kdbench.cli.printing import print_text, warn
from kdbench.errors import UserError, loading_torch

if TYPE_CHECKING:
    import torch

    from kdbench.config.settings import Dataset
    from kdbench.store.folder import RunFolder

SUMMARY = "measure how the frozen features of finished runs do on another dataset"
DETAILS = """\
dataset=D names the dataset to transfer to. SELECTION: run ids or prefixes, or filters: methods=A,B student=S seeds=0,1; 'all'.
  kdbench transfer all dataset=stl10 --data ~/data
  kdbench transfer METHOD-cifar100 OTHER-cifar100 dataset=stl10,tiny_imagenet
linear: logistic regression on pooled features, with a penalty chosen on a fifth of the training images. knn: the 20 nearest
neighbours by cosine. Images are brought to the size and channels that the network was trained on. docs/measures.md has more.
The accuracies are stored in transfer.json of the run's folder. A second call measures only what is missing.
Show them: kdbench leaderboard columns=accuracy,transfer.stl10.linear,transfer.stl10.knn
Exit status: 1 if a run could not be measured, 3 if another process has one of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="all|SELECTION dataset=D", help="which runs, see below")
    folders.add_runs(parser)
    folders.add_data(parser)
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, … (default: a GPU if there is one)")
    parser.add_argument("--again", action="store_true", help="also measure what has been measured already")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.store.folder import RunFolder

    runs, data = folders.runs(arguments), folders.data(arguments)
    names, selected = _targets(arguments.words), _finished(arguments.words, runs)
    stored = {id_: {} if arguments.again else _stored(RunFolder(runs, id_)) for id_ in selected}
    missing = {name: [id_ for id_ in selected if name not in stored[id_]] for name in names}
    with loading_torch():
        from kdbench.run import transfer

    device = transfer.device(arguments.device)
    targets = {name: transfer.dataset(name, data) for name in names if missing[name]}
    statuses = [0]
    for name in names:  # one dataset after another, so that each is decoded once
        for id_ in selected:
            if id_ in missing[name]:
                statuses.append(_measure(RunFolder(runs, id_), name, targets[name], data, device))
            else:
                _print(id_, name, stored[id_][name])
    return max(statuses, key=(0, 3, 1).index)


def _targets(words: Sequence[str]) -> tuple[str, ...]:
    """The datasets that the words name."""
    from kdbench.config import places

    named = [word for word in words if word.startswith("dataset=")]
    if not named:
        raise UserError("specify the dataset to transfer to, as in kdbench transfer all dataset=digits")
    targets = words_.parse(named, ("dataset",), UserError).values["dataset"]
    for name in targets:
        places.member("dataset", name)
    return targets


def _finished(words: Sequence[str], runs: Path) -> list[str]:
    """The ids of the finished runs that the other words select."""
    from kdbench.cli import run_filter, states
    from kdbench.launch import status

    selected = run_filter.parse([word for word in words if not word.startswith("dataset=")])
    if selected.is_empty:
        raise UserError("specify the runs to measure: run ids or prefixes, methods=A,B, student=S, seeds=0,1, or 'all'")
    statuses = selected.select(status.read(runs, selected.ids(runs)))
    finished = [each.id for each in statuses if each.state == "done"]
    if not finished:
        names = [each.id for each in statuses]
        raise UserError(f"no finished run to measure: {states.counts(statuses) if names else 'no run matches'}")
    if len(finished) < len(statuses):
        warn(f"{len(statuses) - len(finished)} of the selected runs have not finished and were left out")
    return finished


def _measure(folder: RunFolder, name: str, dataset: Dataset, data: Path | None, device: torch.device) -> int:
    """Measure one run on one dataset and store the outcome; returns an exit status."""
    from kdbench.run import fault, transfer
    from kdbench.store import lease
    from kdbench.store import transfer as file

    id_ = folder.path.name
    try:
        with lease.acquire(folder.path) as held:
            folder.check = held.check
            network = transfer.extractor(folder, device)
            entry = transfer.measure(network, dataset, data, device)
            file.write(folder, network.weights, {**_stored(folder), name: entry})
    except lease.Held as error:
        warn(f"{id_} was left out: {error}")
        return 3
    except Exception as error:  # of a folder, a network or a reader that may be someone else's
        warn(f"{id_} was not measured on {name}: {fault.sentence(error)}")
        return 1
    _print(id_, name, entry)
    return 0


def _stored(folder: RunFolder) -> dict[str, dict[str, Any]]:
    from kdbench.store import transfer

    return transfer.read(folder, folder.typed_result().get("weights.sha256"))


def _print(id_: str, name: str, entry: Mapping[str, Any]) -> None:
    print_text(f"{id_}  {name}  linear {entry['linear']:.2f} %  knn {entry['knn']:.2f} %")
