"""The notebook of the documentation runs from top to bottom, and shows its progress in one display."""

import os
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "docs" / "quickstart.ipynb"

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")


def test_it_is_stored_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert {cell.execution_count for cell in code} == {None}


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The code cells of the executed notebook, and every text that its displays were updated with."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    updates = []

    class Client(nbclient.NotebookClient):
        def process_message(self, message, cell, index):
            if message["header"]["msg_type"] == "update_display_data":
                updates.append(message["content"]["data"]["text/plain"])
            return super().process_message(message, cell, index)

    client = Client(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "KDBENCH_PLUGINS": "", "PYTHONPATH": str(NOTEBOOK.parents[1])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        client.execute(env=environment)
    return [cell for cell in notebook.cells if cell.cell_type == "code"], updates


@pytest.mark.exhaustive
def test_cells_show_tables_and_plots(executed):
    plan, results, table, bars, digits = executed[0]
    assert "<table" in plan.outputs[0].data["text/html"]
    assert "accuracy.last" in results.outputs[-1].data["text/html"]
    assert "kd" in table.outputs[0].data["text/plain"]
    assert "image/png" in bars.outputs[-1].data
    assert "image/png" in digits.outputs[-1].data


@pytest.mark.exhaustive
def test_progress_is_one_display_that_is_updated(executed):
    cells, updates = executed
    shown, _ = cells[1].outputs
    assert shown.output_type == "display_data"
    *lines, overall = shown.data["text/plain"].splitlines()
    assert len(lines) == 5
    assert all(line.startswith("✓ ") for line in lines)
    assert overall.endswith(" 5/5")
    assert any("epoch " in text or "preparing" in text for text in updates)
