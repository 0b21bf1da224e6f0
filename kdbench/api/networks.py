"""Networks of finished runs, for use outside of kdbench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.config import places
from kdbench.errors import UserError

if TYPE_CHECKING:
    from torch import nn


def load_student(run_folder: str | Path) -> nn.Sequential:
    """The deployed network of a finished run in evaluation mode, on the CPU, behind the normalisation it was trained with.

    The file of weights is read without executing anything in it.

    Returns:
        The modules `normalise` and `network` in sequence: images (B, C, H, W), float32 in 0..1, to logits (B, K).

    Raises:
        UserError: the folder is not that of a finished run.
        RunError: the weights cannot be read, or are those of a method whose file is missing or has changed.
    """
    from kdbench.store.folder import CHECKPOINT, CONFIG, RunFolder

    path = places.user_path(run_folder)
    for name in (CONFIG, CHECKPOINT):
        if not (path / name).is_file():
            raise UserError(f"'{run_folder}' is not the folder of a finished run (it has no {name})")
    folder = RunFolder(path.resolve().parent, path.resolve().name)
    folder.check_links()
    if (state := folder.state()) != "finished":
        reason = "it failed" if state == "failed" else "it has no readable result.json"
        raise UserError(f"'{run_folder}' is not the folder of a finished run ({reason})")

    from torch import nn
    from torchvision.transforms import Normalize

    from kdbench.run import load

    student = nn.Sequential()
    student.add_module("normalise", Normalize(*load.normalisation(path)))
    student.add_module("network", load.deployed(path))
    return student.eval()
