"""Methods, also of the plug-in folder, trained by two processes together and by each alone: `python ranks.py FOLDER NAME…`.

The environment says which process this is; it leaves FOLDER/RANK.pt. Comparisons are the tests' business.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "run"))

import ranks

from kdbench.run.group import Group


def main(folder, names):
    torch.set_num_threads(1)
    cases = [(name, 17, "float64") for name in names]  # five steps, unequal shares
    with Group.from_environment("cpu") as group:
        results = {
            "parts": {name: ranks.trajectory(folder, name, *rest, group) for name, *rest in cases},
            "whole": {
                name: ranks.trajectory(folder / "alone", name, *rest, Group()) for name, *rest in cases[group.rank :: 2]
            },
        }
    torch.save(results, folder / f"{group.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
