"""The table of all backbones: `python -m kdbench.backbones.table > docs/backbones.md`."""

from __future__ import annotations

import sys

import torch

from kdbench.backbones import registry
from kdbench.backbones.backbone import Backbone
from kdbench.config import extensions, places
from kdbench.errors import UserError

CLASSES, IMAGE = 100, (3, 32, 32)

HEAD = """\
# Backbones

Every name is a student (`student=resnet20`) and a teacher (`teacher=wrn_40_2`). Made by `python -m kdbench.backbones.table`.

- **Parameters** are for 100 classes.
- **Stage maps** are channels and side of the maps that methods read, for images of 32×32 pixels; `+` is a map before any ReLU.
- **Also offers**: *pre-activations* and *last BN* of each stage, *branches* (stages that run on their own). A method that needs
  what a network does not offer is refused in one sentence. Maps, pooled features and logits are offered by all.

"""

TAIL = """
## Networks of torchvision and timm

A classifier of torchvision by its name, `student=torchvision/mobilenet_v3_small`, or one of timm with the extra
(`pip install 'kdbench[timm]'`), `student=timm/vit_tiny_patch16_224`. It must end in a single linear layer: SqueezeNets and
distilled transformers with two heads are refused. Its forward pass is the library's, with a classifier for
the classes of the dataset, and its state dict has the library's names. Stage maps are what its modules return on the way: the
last map of each resolution, the four deepest; of a transformer, the tokens after each quarter of its blocks as a map, class
tokens left out. They offer neither pre-activations nor branches.

Pretrained weights are named as in the library: `torchvision/resnet50:IMAGENET1K_V2`, `timm/resnet18.a1_in1k`. They are fetched
by the library (and so need a network, or its cache), and see images with the mean and standard deviation that they were trained
with. A teacher given in this way is fine-tuned on the dataset first, as every teacher is trained.

Networks that take images of one size (most transformers) say which; `Dataset.size=224` scales image files to it.
"""


def table() -> str:
    """All of kdbench's own backbones as a Markdown document."""
    lines = ["| name | parameters | stage maps | also offers | family |", "|---|--:|---|---|---|"]
    for name, extension in sorted(
        extensions.members("backbone").items(), key=lambda item: (item[1].path.name, item[0])
    ):
        if extension.origin != places.BUILT_IN:
            continue
        with torch.device("meta"):  # nothing is computed or drawn
            network = registry.build(name, CLASSES, IMAGE[0])
        parameters = sum(parameter.numel() for parameter in network.parameters())
        shapes = " ".join(f"{channels}×{side}" for channels, side, _ in network.stage_shapes(IMAGE))
        shapes += " +" * network.signed_maps
        lines.append(f"| `{name}` | {parameters:,} | {shapes} | {', '.join(_offers(network))} | {extension.summary} |")
    return HEAD + "\n".join(lines) + "\n" + TAIL


def _offers(network: Backbone) -> list[str]:
    offers = []
    with torch.device("meta"):
        x = network.stem(torch.zeros(1, *IMAGE))
    for what, ask in {
        "pre-activations": lambda: network.before_and_after_relu(0, x),
        "last BN": lambda: network.last_bn(0),
        "branches": lambda: network.stage_modules(),
    }.items():
        try:
            ask()
        except UserError:
            continue
        offers.append(what)
    return offers


if __name__ == "__main__":
    sys.stdout.write(table())
