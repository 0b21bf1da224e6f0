"""docs/backbones.md."""

from pathlib import Path

import pytest

from kdbench.backbones.table import table


@pytest.mark.exhaustive
def test_the_document_is_that_of_the_registry():
    document = Path(__file__).parents[2] / "docs" / "backbones.md"
    assert document.read_text() == table(), "run: python -m kdbench.backbones.table > docs/backbones.md"
