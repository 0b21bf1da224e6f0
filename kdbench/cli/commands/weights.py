"""`kdbench weights`: the student of a finished run as a file for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.cli import folders
from kdbench.cli.printing import print_text
from kdbench.errors import UserError, loading_torch

if TYPE_CHECKING:
    from kdbench.store.folder import RunFolder
    from kdbench.weights.write import Agreement

SUMMARY = "write the student of a finished run as safetensors, ONNX or torch.export"
DETAILS = """\
RUN is a run id, a prefix of one, or a run folder. The file holds the deployed network: no adapters, teachers or other parts that
only training needs. The end of its name chooses the format:
  kdbench weights RUN --to student.safetensors   weights, with classes, normalisation, run id and accuracy as metadata
  kdbench weights RUN --to student.onnx          a network that takes pixels in 0..1; pip install 'kdbench[onnx]'
  kdbench weights RUN --to student.pt2           the same for torch.export.load
  kdbench weights RUN --card README.md --license mit       a model card: data, teacher, method, interval, cost, command
  kdbench weights RUN --to-folder student/                 model.safetensors and README.md, as the Hugging Face Hub expects them
  kdbench weights RUN --push-to-hub NAME/MODEL             uploads the same two files; pip install 'kdbench[hub]'
The file is read back and compared with the run's own network on random images. One that differs is not written.
The weights of a torchvision/NAME or timm/NAME student have that library's names. docs/weights.md has more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="RUN", help="a run id, a prefix, or a run folder")
    parser.add_argument("--to", type=Path, metavar="FILE", help="file to write: .safetensors, .onnx or .pt2")
    parser.add_argument("--card", type=Path, metavar="FILE.md", help="model card to write")
    parser.add_argument("--license", metavar="ID", help="licence of the weights for the card, such as mit or cc-by-4.0")
    parser.add_argument("--to-folder", type=Path, metavar="DIR", help="folder to write weights and card to")
    parser.add_argument("--push-to-hub", metavar="REPO", help="repository of the Hugging Face Hub to upload both to")
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    folders.add_runs(parser)


def run(arguments: argparse.Namespace) -> int:
    from kdbench.config import places

    if len(arguments.words) != 1:
        raise UserError(
            f"weights takes one run, as in kdbench weights RUN --to student.safetensors; {len(arguments.words)} given"
        )
    if not any((arguments.to, arguments.card, arguments.to_folder, arguments.push_to_hub)):
        raise UserError("specify the file to write, as in kdbench weights RUN --to student.safetensors")
    folder = _folder(arguments.words[0], folders.runs(arguments))
    with loading_torch():
        from kdbench.files import write_atomically
        from kdbench.run import student_file
        from kdbench.weights import card, hub, write
    to, of_card, local = (
        places.user_path(path).resolve() if path else None
        for path in (arguments.to, arguments.card, arguments.to_folder)
    )
    if to:
        write.check_target(to, arguments.force)
    for path in (of_card, *((local / hub.WEIGHTS, local / hub.CARD) if local else ())):
        if path:
            write.check_new(path, arguments.force)
    card.check_license(arguments.license)
    if arguments.push_to_hub:
        hub.check_repository(arguments.push_to_hub)
    student = student_file.of_run(folder)
    if to:
        _print(to, write.write(student, to))
    if of_card:
        file = to.name if to and to.suffix == ".safetensors" else None
        write_atomically(of_card, card.text(folder, student.facts, arguments.license, file).encode())
        print_text(f"wrote {of_card}")
    if local:
        _print(local / hub.WEIGHTS, hub.write_folder(folder, local, arguments.license))
        print_text(f"wrote {local / hub.CARD}")
    if arguments.push_to_hub:
        print_text(f"uploaded to {hub.push(folder, arguments.push_to_hub, arguments.license)}")
    return 0


def _folder(word: str, runs: Path) -> RunFolder:
    """The folder of the run that a word means: a path, an id or a prefix."""
    from kdbench.config import places
    from kdbench.store import ids
    from kdbench.store.folder import CONFIG, RunFolder

    path = places.user_path(word)
    if "/" in word or (path / CONFIG).is_file():
        if not (path / CONFIG).is_file():
            raise UserError(f"'{word}' is not a run folder (it has no {CONFIG})")
        path = path.resolve()
    else:
        path = ids.folder(word, runs)
    return RunFolder(path.parent, path.name)


def _print(to: Path, agreement: Agreement) -> None:
    print_text(
        f"wrote {to}; largest difference from torch's outputs on random images: {agreement.largest:.2g} "
        f"({agreement.relative:.2g} of the largest logit)"
    )
