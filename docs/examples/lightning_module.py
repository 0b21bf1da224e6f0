"""Distillation as a LightningModule: Lightning runs the loop, kdbench gives the terms of the loss.

pip install lightning
python docs/examples/lightning_module.py
"""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import kdbench


class Distillation(lightning.LightningModule):
    """A student that learns from a trained teacher.

    Args:
        student, teacher: images (B, C, H, W) to logits (B, K).
        options: as for `kdbench.wrap`: method, classes, and the method's own parameters.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | None = None, **options: object):
        super().__init__()
        self.distiller = kdbench.wrap(student, teacher, **options)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        terms = self.distiller(*batch)
        self.log_dict({f"loss/{name}": term.detach() for name, term in terms.items()})
        return sum(terms.values())

    def on_train_batch_end(self, *_: object) -> None:
        self.distiller.after_step()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.distiller.parameters(), lr=0.05, momentum=0.9)


def network(width: int) -> nn.Module:
    """Images (B, 1, 8, 8) to logits (B, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    )  # fmt: skip


def main(**trainer: object) -> dict[str, float]:
    """Trains a teacher, then a student that learns from it; returns the last terms of the student's loss.

    Args:
        trainer: options of `lightning.Trainer`.
    """
    lightning.seed_everything(0, verbose=False)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    batches = DataLoader(TensorDataset(images, torch.tensor(digits.target)), batch_size=64, shuffle=True)

    teacher = network(width=32)
    lightning.Trainer(**trainer).fit(Distillation(teacher, method="ce", classes=10), batches)
    student = Distillation(network(width=8), teacher, method="kd", classes=10, temperature=2.0)
    fitted = lightning.Trainer(**trainer)
    fitted.fit(student, batches)
    return {name: float(value) for name, value in fitted.callback_metrics.items()}


if __name__ == "__main__":
    print(main(max_epochs=8, accelerator="cpu", logger=False, enable_checkpointing=False))
