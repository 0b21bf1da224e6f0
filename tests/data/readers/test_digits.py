"""The digits are those of scikit-learn, read without importing it."""

import subprocess
import sys

import numpy as np

from kdbench.data.readers import digits
from kdbench.data.readers.arrays import canonical


def test_the_images_are_those_that_scikit_learn_loads():
    from sklearn.datasets import load_digits  # not before: it takes 1.4 s of each process of the tests

    theirs = load_digits()
    pixels = np.rint(theirs.images * (255 / 16)).astype(np.uint8)[..., None]
    images, labels = canonical(pixels, theirs.target)
    ours = digits.read("digits", None)
    train = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        train[np.flatnonzero(labels == digit)[: digits.DIGITS_TRAIN_PER_CLASS]] = True
    assert np.array_equal(ours.train_images, images[train])
    assert np.array_equal(ours.test_images, images[~train])
    assert np.array_equal(ours.test_labels, labels[~train])
    assert ours.classes == tuple(str(name) for name in theirs.target_names)


def test_scikit_learn_which_takes_long_is_not_imported():
    script = "import sys; from kdbench.data.readers import digits; digits.read('digits', None); print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"
