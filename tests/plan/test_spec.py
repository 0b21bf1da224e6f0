"""What a spec.json of any origin may hold."""

import pytest

from kdbench.errors import RunError
from kdbench.plan import expand, request
from kdbench.plan.spec import Spec

(CE,) = expand.plan(request.parse(["methods=ce", "dataset=digits", "seeds=0"]))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"method": 3}, "its 'method' is not a string"),
        ({"teacher": ["a"]}, "its 'teacher' is neither a string nor null"),
        ({"seed": "0"}, "its 'seed' is not a number from 0"),
        ({"seed": True}, "its 'seed' is not a number from 0"),
        ({"gpus": 10**40}, "its 'gpus' is not a number from 0"),
        ({"overrides": []}, "its 'overrides' is not an object"),
        ({"teacher_runs": "a"}, "its 'teacher_runs' is not a list of strings"),
        ({"teacher_runs": [1]}, "its 'teacher_runs' is not a list of strings"),
        ({"teacher_folders": {"a": 1}}, "its 'teacher_folders' is not an object of strings"),
        ({"is_teacher": 1}, "its 'is_teacher' is neither true nor false"),
        ({"unheard_of": 1}, "its 'unheard_of' is of another version of kdbench"),
    ],
)
def test_an_entry_of_another_type_is_one_sentence(changed, sentence):
    with pytest.raises(RunError, match="cannot be used") as caught:
        Spec.from_plain({**CE.plain(), **changed})
    assert sentence in str(caught.value)


@pytest.mark.parametrize("plain", [{}, {"id": "a"}, {"teacher_run": "a"}])
def test_a_spec_that_lacks_entries_is_one_sentence(plain):
    with pytest.raises(RunError, match="it lacks '"):
        Spec.from_plain(plain)
