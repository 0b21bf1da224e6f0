"""The 20 superclasses of CIFAR-100 (Krizhevsky, 2009), of five classes each."""

from __future__ import annotations

from collections.abc import Sequence

from kdbench.errors import RunError

SUPERCLASSES = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
"""Superclasses in the order of their official labels, with their classes."""

FINE = tuple(sorted(name for names in SUPERCLASSES.values() for name in names))
"""Classes in the order of their official labels."""


def coarse_labels(classes: Sequence[str]) -> list[int]:
    """The official coarse label of each fine class of CIFAR-100, given in the order of the fine labels.

    Args:
        classes: official names, or any names that begin with or are numbers, whose order then is the official one.

    Raises:
        RunError: other names, which say nothing about the superclass.
    """
    numbered = all(any(character.isdigit() for character in name) for name in classes)
    names = FINE if numbered and len(classes) == len(FINE) else tuple(name.replace(" ", "_") for name in classes)
    superclass_of = {name: label for label, names in enumerate(SUPERCLASSES.values()) for name in names}
    unknown = [name for name in names if name not in superclass_of]
    if unknown or len(names) != len(FINE):
        other = [*unknown, *classes][0]
        raise RunError(
            f"the superclasses need the official names of CIFAR-100's classes or their numbers, not '{other}'"
        )
    return [superclass_of[name] for name in names]
