from dataclasses import replace

import pytest

from kdbench.method import RunError
from kdbench.plan import expand, request


def test_it_is_kd_until_its_share_and_ce_afterwards_without_the_teacher(make, batch, monkeypatch):
    method, kd, ce = make("eskd").eval(), make("kd").eval(), make("ce").eval()
    one = batch(method)
    assert method.losses(replace(one, progress=0.624)) == kd.losses(one)
    monkeypatch.setattr(method, "teach", None)
    assert method.losses(replace(one, progress=0.625)) == ce.losses(one)


def test_every_parameter_reaches_its_term(make, batch):
    given = {"ce_weight": 0.4, "kd_weight": 2.0, "temperature": 2.0}
    method, kd = make("eskd", until=0.2, later_ce_weight=0.5, **given).eval(), make("kd", **given).eval()
    one = batch(method)
    assert method.losses(replace(one, progress=0.19)) == kd.losses(one)
    later = method.losses(replace(one, progress=0.21))
    assert later.keys() == {"ce"}
    assert later["ce"].item() == pytest.approx(0.5 / 0.4 * kd.losses(one)["ce"].item(), rel=1e-5)


def test_until_the_end_it_is_kd(make, batch):
    method, kd = make("eskd", until=1.0).eval(), make("kd").eval()
    one = batch(method)
    assert method.losses(replace(one, progress=0.9999)) == kd.losses(one)


@pytest.mark.parametrize("until", [0.0, 1.5])
def test_a_share_that_is_none_is_refused(make, until):
    with pytest.raises(RunError, match=rf"ESKD\.until={until:g} must be above 0 and at most 1"):
        make("eskd", until=until)


def test_the_variant_is_kd_from_a_short_training():
    words = ["methods=eskd_teacher,kd", "dataset=digits", "teacher=resnet14"]
    short, whole, taught, kd = expand.plan(request.parse(words))
    assert [(spec.method, spec.control) for spec in (short, whole)] == [("ce_quarter", {"budget": 0.25}), ("ce", {})]
    assert taught.teacher_runs == (short.id,)
    assert (taught.source, taught.protocol, taught.control) == ("kd", kd.protocol, {})
    assert kd.teacher_runs == (whole.id,)
