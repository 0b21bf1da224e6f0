"""Facts of a student as text and back."""

import pytest

from kdbench.run.student_facts import Facts

FACTS = Facts(
    run="ce-digits", method="ce", dataset="digits", student="resnet8", seed=0, classes=5, class_names=("a", "b", "c", "d", "e"),
    mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), image_shape=(3, 32, 32), accuracy=91.25, protocol="1f9c20", kdbench="0.1.0",
)  # fmt: skip


@pytest.mark.parametrize("text", ["[" * 100_000, "3", "{}", "no JSON"])
def test_metadata_that_are_not_facts_are_refused(text):
    with pytest.raises(ValueError, match=r"^its metadata "):
        Facts.of(text)


def test_facts_survive_as_text():
    assert Facts.of(FACTS.text()) == FACTS
