"""Networks of finished runs outside of kdbench, and methods around networks of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.config import places
from kdbench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdbench.run.own_loop import Distiller


def load_student(run_folder: str | Path) -> nn.Module:
    """The deployed network of a finished run in evaluation mode, on the CPU, behind the normalisation it was trained with.

    Args:
        run_folder: the run's folder, or a safetensors file that `kdbench weights` wrote.

    The file of weights is read without executing anything in it.

    Returns:
        Images (B, C, H, W), float32 in 0..1, to logits (B, K). Its module `network` takes normalised images.

    Raises:
        UserError: the folder is not that of a finished run.
        RunError: the weights cannot be read, are not those of a student, or are those of a method whose file is missing or
            has changed.
    """
    from kdbench.store.folder import CHECKPOINT, CONFIG, RunFolder

    path = places.user_path(run_folder)
    if path.is_file():
        from kdbench.run import student_file

        return student_file.read(path).on_pixels()
    for name in (CONFIG, CHECKPOINT):
        if not (path / name).is_file():
            raise UserError(f"'{run_folder}' is not the folder of a finished run (it has no {name})")
    folder = RunFolder(path.resolve().parent, path.resolve().name)
    folder.check_links()
    if (state := folder.state()) != "finished":
        reason = "it failed" if state == "failed" else "it has no readable result.json"
        raise UserError(f"'{run_folder}' is not the folder of a finished run ({reason})")

    from kdbench.run import load, student_file

    return student_file.OnPixels(load.deployed(path), *load.normalisation(path))


def wrap(
    student: nn.Module,
    teacher: nn.Module | None = None,
    *,
    method: str,
    classes: int,
    image_shape: tuple[int, int, int] | None = None,
    labels: Tensor | None = None,
    label_smoothing: float = 0.0,
    **parameters: Any,
) -> Distiller:
    """A method around networks of one's own, for a training loop of one's own.

    The result is a torch module. Called with a batch (images, labels, and `index` where the method keeps something of each
    image) it returns named loss terms; their sum is the loss. Optimise its `parameters()`, and call its `after_step()` after
    each step of the optimiser. Random draws follow `torch.manual_seed`.

    Both networks get the images as they are: put a normalisation inside (as `load_student` does) where they need different
    ones. The teacher is put into evaluation mode and frozen. Methods that read features take them from the modules of the
    networks, and need a linear layer at their end. Move the networks to their device before.

    Args:
        student: a module whose forward pass returns logits (B, K), or a backbone of kdbench.
        teacher: another such module, trained.
        method: name of a method; `kdbench list methods` lists them.
        classes: number of logits K.
        image_shape: (channels, height, width) of an image, for methods that read the shapes of feature maps.
        labels: (N,) classes of all training images, for methods that keep something of each image.
        label_smoothing: of the cross-entropy.
        parameters: values of the method's own parameters, `temperature=2.0`; those of its gin file for the others.

    Raises:
        UserError: the method or a parameter is unknown; the method needs something that is missing, or that only kdbench's own
            loop gives: groups of related images, several views, phases, optimisers of its own.
    """
    import torch

    from kdbench.method import Info
    from kdbench.run.own_loop import distiller

    device = next(student.parameters()).device
    info = Info(
        classes=classes,
        train_labels=torch.empty(0, dtype=torch.int64) if labels is None else torch.as_tensor(labels),
        image_shape=image_shape or (0, 0, 0),
        label_smoothing=label_smoothing,
        device=device,
    )
    return distiller(student, teacher, method, info, parameters)
