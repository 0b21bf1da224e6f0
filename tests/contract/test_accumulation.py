"""Every kind of method with its batches in parts: pairs, triplets, memories, phases, peers, views; and those that are refused."""

import pytest

from kdbench.errors import UserError

PARTS = "crd,byot,corsd,rkd,ab,dml,ps_kd,sla_sd"


@pytest.mark.exhaustive
def test_methods_train_on_parts_of_their_batches(run_all, tmp_path):
    results = run_all(tmp_path, f"methods={PARTS}", "Train.epochs=3", "Train.accumulate=3")
    assert [result.get("error") for result in results] == [None] * len(results)
    for result in results:
        assert result["passes.student"] == result["images_seen"] > 0, result["method"]
        assert result["cost.flops_training"] > 0


@pytest.mark.parametrize("method", ["dot", "dhkd"])
def test_methods_with_an_update_of_their_own_are_refused_before_anything_starts(plan, method):
    with pytest.raises(
        UserError, match=rf"Train.accumulate=2 does not work with the method '{method}', whose own update"
    ):
        plan(f"methods={method}", "Train.accumulate=2")


@pytest.mark.parametrize("method", ["dml", "ema"])
def test_methods_with_peers_and_averages_train_with_adamw(run_all, tmp_path, method):
    *_, result = run_all(tmp_path, f"methods={method}", "recipe=adamw", "Train.epochs=1")
    assert result["status"] == "finished", result["error"]
