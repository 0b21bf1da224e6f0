"""A process that compiles nothing starts without torch's compiler."""

import subprocess
import sys

import torch

from kdbench import eager

RUN = """
import sys
from kdbench.cli.main import main

words = "dataset=digits student=resnet8 teacher=resnet8 Train.epochs=2 Train.batch_size=32 Train.warmup=0".split()
words.append("Measures.corruptions=False")
for more in (["methods=kd"], ["methods=ce", "recipe=adamw"]):
    assert main(["run", *words, *more, "--runs", sys.argv[1]]) == 0
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""


def test_no_run_imports_the_compiler(tmp_path):
    done = subprocess.run([sys.executable, "-c", RUN, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_uninterrupted_step_is_torchs_bit_for_bit():
    class SGD(torch.optim.SGD):
        step = eager.uninterrupted(torch.optim.SGD.step)

    ends = []
    for optimiser in (torch.optim.SGD, SGD):
        torch.manual_seed(0)
        weights = torch.nn.Parameter(torch.randn(50))
        steps = optimiser([weights], lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True)
        for _ in range(3):
            steps.zero_grad()
            weights.pow(3).sum().backward()
            steps.step()
        ends.append((weights.detach(), steps.state_dict()["state"][0]["momentum_buffer"]))
    assert all(map(torch.equal, *ends))


def test_functions_that_are_not_marked_stay_as_they_are():
    before = torch.nn.Linear.forward
    eager.unmarked(torch.nn.Linear)
    assert torch.nn.Linear.forward is before
    assert "__dynamo_disable" not in vars(before)
