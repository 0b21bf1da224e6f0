"""Settings that change bits are recorded, and those of one run do not affect the next one in the same process."""

import pytest
import torch

from kdbench.config import places
from kdbench.config.settings import Machine
from kdbench.plan import expand, request
from kdbench.run import arithmetic
from kdbench.run.execute import run

METHOD = '''
import torch
from kdbench.method import Method
{at_import}

class Fast(Method):
    """Cross-entropy, with PyTorch's settings changed."""

    def setup(self):
        torch.backends.cudnn.benchmark = True

    def losses(self, batch):
        return {{"ce": self.cross_entropy(self.student(batch.images), batch.labels)}}
'''
WORDS = [
    "dataset=digits", "student=resnet8", "Train.epochs=1", "Train.warmup=0", "Train.batch_size=64", "Machine.threads=1",
    "Measures.corruptions=False", "Measures.noise=()",
]  # fmt: skip


def test_settings_that_nobody_changed_are_the_default():
    assert arithmetic.settings() == "default"


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda: torch.set_float32_matmul_precision("medium"), "float32_matmul_precision=medium"),
        (lambda: setattr(torch.backends.cudnn, "benchmark", True), "backends.cudnn.benchmark=True"),
        (lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True), "backends.cuda.matmul.allow_tf32=True"),
        (lambda: torch.set_default_dtype(torch.float64), "default_dtype=torch.float64"),
        (lambda: torch.use_deterministic_algorithms(True), "default"),  # provenance.deterministic
    ],
)
def test_a_changed_setting_is_named_and_put_back(change, shown):
    with arithmetic.kept():
        change()
        torch.set_num_threads(torch.get_num_threads() + 1)
        threads = torch.get_num_threads()
        assert shown in arithmetic.settings()
    assert arithmetic.settings() == "default"
    assert torch.get_num_threads() == threads - 1
    assert not torch.are_deterministic_algorithms_enabled()


def test_variables_that_change_results_are_named():
    environment = {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "MKL_NUM_THREADS": "1",
        "HOME": "/home/me",
    }
    assert arithmetic.variables(environment) == "ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE"
    # scikit-learn sets the last one when it is imported.
    assert arithmetic.variables({"PATH": "/bin", "ONEDNN_VERBOSE": "1", "KMP_INIT_AT_FORK": "FALSE"}) == "none"


def test_what_a_methods_file_sets_is_in_its_rows_and_in_no_other(own_plugins, tmp_path, monkeypatch):
    (tmp_path / "own" / "methods").mkdir(parents=True)
    (tmp_path / "own" / "gin" / "method").mkdir(parents=True)
    (tmp_path / "own" / "gin" / "method" / "fast.gin").write_text("# It has no parameters.\n")
    text = METHOD.format(at_import="torch.set_float32_matmul_precision('high')")
    (tmp_path / "own" / "methods" / "fast.py").write_text(text)
    places.add_plugins([str(tmp_path / "own")])
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    first, second, other = (
        run(spec, tmp_path, None)
        for words in (["methods=fast", "seeds=0,1"], ["methods=ce", "Machine.deterministic=True"])
        for spec in expand.plan(request.parse([*WORDS, *words]))
    )
    for result in (first, second):  # the file is imported once
        assert "float32_matmul_precision=high" in result["provenance.arithmetic"]
        assert "backends.cudnn.benchmark=True" in result["provenance.arithmetic"]
        assert (result["provenance.compile"], result["provenance.deterministic"]) == (False, False)
    assert (other["provenance.arithmetic"], other["provenance.deterministic"]) == ("default", True)
    assert "CUBLAS_WORKSPACE_CONFIG=:4096:8" in other["provenance.variables"]


@pytest.mark.parametrize("words", [[], ["Machine.tf32=True"], ["Machine.deterministic=True"]])
def test_on_a_gpu_tf32_is_off_unless_asked_for_and_cudnn_measures_unless_deterministic(words):
    machine = Machine(
        "auto", 0, False, "Machine.deterministic=True" in words, 60.0, 1, "", tf32="Machine.tf32=True" in words
    )
    with arithmetic.kept():
        arithmetic.apply(machine, torch.device("cpu"), "ce")
        assert arithmetic.settings() == "default"
        arithmetic.apply(machine, torch.device("cuda"), "ce")
        backends = torch.backends
        assert (backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32) == (machine.tf32, machine.tf32)
        assert backends.cudnn.benchmark == (not machine.deterministic)
        assert ("backends.cudnn.allow_tf32=False" in arithmetic.settings()) == (not machine.tf32)
    assert arithmetic.settings() == "default"


def test_what_a_methods_file_has_set_outlasts_the_machines_settings(monkeypatch):
    machine = Machine("auto", 0, False, False, 60.0, 1, "")
    monkeypatch.setitem(arithmetic._of_imports, "fast", {"backends.cudnn.allow_tf32": True})
    with arithmetic.kept():
        arithmetic.apply(machine, torch.device("cuda"), "fast")
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.benchmark
