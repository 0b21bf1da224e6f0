"""Studies of any origin."""

import json

import pytest

from kdbench.store.studies import read_trials

GOOD = {"number": 0, "status": "finished", "parameters": {"temperature": 4.0}, "accuracy.val": 50.0, "values": "a"}


def test_trials_are_read_in_order(tmp_path):
    trials = [GOOD, {**GOOD, "number": 1, "status": "failed", "accuracy.val": None}]
    (tmp_path / "study.json").write_text(json.dumps({"trials": trials}))
    assert read_trials(tmp_path / "study.json") == trials


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, "it has no list of trials"),
        ({"trials": {}}, "it has no list of trials"),
        ({"trials": [GOOD, 3]}, "trial 1 is not an object"),
        ({"trials": [{**GOOD, "status": "x"}]}, "trial 0 has neither finished nor failed"),
        ({"trials": [{**GOOD, "parameters": []}]}, "trial 0 has no number or no parameters"),
        ({"trials": [{**GOOD, "accuracy.val": "high"}]}, "trial 0 has finished without an accuracy"),
        ({"trials": [{**GOOD, "accuracy.val": 1e308}]}, "trial 0 has finished without an accuracy"),
    ],
)
def test_a_damaged_study_is_one_reason(tmp_path, content, why):
    (tmp_path / "study.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=why):
        read_trials(tmp_path / "study.json")
