import pytest
import torch
from torchvision.transforms import AutoAugmentPolicy, v2

from kdbench.config.settings import Augment
from kdbench.config.switches import Strong
from kdbench.data.augment import policy_of
from kdbench.data.autoaugment import MAGNITUDES, AutoAugment, table
from kdbench.data.randaugment import OPERATIONS, RandAugment

FILL = 77
THEIRS = v2.AutoAugment(AutoAugmentPolicy.CIFAR10, fill=FILL)
EXACT = ("TranslateX", "TranslateY", "Brightness", "Posterize", "Solarize", "AutoContrast", "Equalize")


def images(count=6):
    return torch.randint(256, (count, 13, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_pairs_are_those_of_torchvision():
    numbers, chances = table()
    assert (numbers.shape, chances.shape) == ((25, 2, 2), (25, 2))
    for pair, chance, theirs in zip(numbers.tolist(), chances.tolist(), THEIRS._policies, strict=True):
        for (number, magnitude), own, (name, probability, level) in zip(pair, chance, theirs, strict=True):
            assert own == probability
            if name == "Invert":
                name, level = "Solarize", MAGNITUDES - 1
            assert OPERATIONS[number] == name
            assert magnitude == (level or 0)


@pytest.mark.parametrize("operation", EXACT)
def test_operations_have_the_ranges_of_torchvision(operation):
    made = AutoAugment(13, 16, FILL)
    values, signed = THEIRS._AUGMENTATION_SPACE[operation]
    values = values(MAGNITUDES, 13, 16)
    for magnitude in range(MAGNITUDES):
        for negative in (0, 1):
            amount = 0.0 if values is None else float(values[magnitude]) * (-1 if signed and negative else 1)
            expected = THEIRS._apply_image_or_video_transform(
                images().permute(0, 3, 1, 2), operation, amount, THEIRS.interpolation, THEIRS._fill
            )
            drawn = torch.tensor([OPERATIONS.index(operation), magnitude, negative]).expand(6, 1, 3)
            assert torch.equal(made(images(), drawn), expected.permute(0, 2, 3, 1)), (magnitude, negative)


def test_to_invert_is_to_solarise_all():
    drawn = torch.tensor([OPERATIONS.index("Solarize"), MAGNITUDES - 1, 0]).expand(6, 1, 3)
    assert torch.equal(AutoAugment(13, 16, FILL)(images(), drawn), 255 - images())


def test_each_operation_is_done_with_its_chance():
    drawn = AutoAugment(8, 8, FILL).draw(50000, torch.Generator().manual_seed(0))
    numbers, chances = table()
    for step in range(2):
        for number, name in enumerate(OPERATIONS[:-1]):
            expected = (chances[:, step] * (numbers[:, step, 0] == number)).sum().item() / 25
            done = (drawn[:, step, 0] == number).float().mean().item()
            assert done == pytest.approx(expected, abs=0.01), name
    assert drawn[:, :, 2].float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_policies_by_name():
    recipe = {"padding": 0.0, "fill": 0, "flip": True, "cutout": 0.0}
    assert policy_of(Augment(**recipe), 8, 8, FILL) is None
    kinds = {"autoaugment": AutoAugment, "randaugment": RandAugment, "trivialaugment": RandAugment}
    for name, cls in kinds.items():
        assert type(policy_of(Augment(**recipe, policy=name), 8, 8, FILL)) is cls
        assert type(policy_of(Strong(policy=name), 8, 8, FILL)) is cls
