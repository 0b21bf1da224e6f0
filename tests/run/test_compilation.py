"""Which networks are compiled; tests/gpu compiles them."""

import pytest
import torch

from kdbench.run.compilation import beginning_of_step, compile_networks, not_compiled


@pytest.mark.parametrize("mode", [True, "reduce-overhead"])
def test_student_and_teachers_are_compiled(make, mode):
    method = make("kd")
    compile_networks(method, False)
    assert method.student._compiled_call_impl is method.teacher._compiled_call_impl is None
    compile_networks(method, mode)
    assert method.student._compiled_call_impl
    assert method.teacher._compiled_call_impl


def test_a_step_is_marked_for_cuda_graphs_alone():
    assert beginning_of_step("reduce-overhead") is torch.compiler.cudagraph_mark_step_begin
    assert beginning_of_step(True)() is None


def test_evaluations_run_compiled_networks_as_they_are_written():
    def backend(graph, inputs):
        raise AssertionError("compiled")

    double = torch.compile(lambda x: 2 * x, backend=backend)
    with not_compiled(True):
        assert double(torch.ones(2)).tolist() == [2, 2]
    with pytest.raises(Exception, match="compiled"), not_compiled(False):
        double(torch.ones(2))
