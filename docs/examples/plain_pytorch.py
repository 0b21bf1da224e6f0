"""Distillation in a PyTorch loop of one's own: a small network learns from a larger one on scikit-learn's digits.

    python docs/examples/plain_pytorch.py

Any method of `kdbench list methods` that works on single batches can take the place of "kd".
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kdbench


def network(width: int) -> nn.Module:
    """Images (B, 1, 8, 8) to logits (B, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    )  # fmt: skip


def train(distiller: nn.Module, batches: DataLoader, epochs: int) -> None:
    """The loop: terms, their sum backward, one step, and `after_step`."""
    optimiser = torch.optim.Adam(distiller.parameters(), lr=1e-2)
    for epoch in range(1, epochs + 1):
        for images, labels, index in batches:
            terms = distiller(images, labels, index)
            optimiser.zero_grad()
            sum(terms.values()).backward()
            optimiser.step()
            distiller.after_step()
        print(f"epoch {epoch}: " + ", ".join(f"{name} {term.item():.3f}" for name, term in terms.items()))


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images that are classified correctly, in percent."""
    model.eval()
    with torch.no_grad():
        return 100 * (model(images).argmax(dim=1) == labels).float().mean().item()


def main(epochs: int = 8) -> float:
    """Trains a teacher with cross-entropy and a student with distillation; returns the student's accuracy in percent."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels, index = torch.tensor(digits.target), torch.arange(len(digits.target))
    order = torch.randperm(len(labels))
    kept, held_out = order[:1400], order[1400:]
    # `index` counts among the training images, for methods that keep something of each.
    batches = DataLoader(TensorDataset(images[kept], labels[kept], index[: len(kept)]), batch_size=64, shuffle=True)

    teacher = network(width=32)
    train(kdbench.wrap(teacher, method="ce", classes=10), batches, epochs)
    student = network(width=8)
    train(kdbench.wrap(student, teacher, method="kd", classes=10, temperature=2.0), batches, epochs)

    for name, model in (("teacher", teacher), ("student", student)):
        print(f"{name}: {accuracy(model, images[held_out], labels[held_out]):.1f} % of {len(held_out)} held-out images")
    return accuracy(student, images[held_out], labels[held_out])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
