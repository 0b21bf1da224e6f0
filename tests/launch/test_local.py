"""Runs on this machine; what several processes do is in test_pool.py."""

import sys

import pytest

from kdbench.errors import UserError
from kdbench.launch import local
from kdbench.plan import expand, request

SPECS = expand.plan(request.parse(["methods=ce", "dataset=digits"]))


def test_several_processes_need_linux(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UserError, match=r"workers=, gpus=\) need Linux"):
        local.local(SPECS, tmp_path / "runs", None, workers=2)
    assert not (tmp_path / "runs").exists()
