import pytest

from kdbench.errors import UserError
from kdbench.report import records
from kdbench.report.foreign import schema
from kdbench.report.foreign.merging import TOLERANCE, merge

NOON, LATER = "2026-11-27T12:00:00+00:00", "2026-11-27T13:00:00+00:00"


@pytest.fixture
def merged(source):
    """The records of own results with those of somebody else."""

    def do(own, theirs):
        return merge(records.frame(own), schema.rows(source(*theirs)), "theirs.csv")

    return do


def test_new_rows_are_added_with_their_origin_and_what_is_there_stays(row, merged):
    own = [row("ce", 0), row("kd", 0, 61.0)]
    outcome = merged(own, [row("ce", 0), row("ce", 1, 51.0)])
    assert (outcome.added, outcome.present, outcome.messages) == (1, 1, [])
    assert dict(zip(outcome.records["run"], outcome.records["origin"], strict=True)) == {
        row("ce", 0)["run"]: "",
        row("ce", 1)["run"]: "theirs.csv 12345678",
        row("kd", 0)["run"]: "",
    }
    again = merge(outcome.records, records.frame([row("ce", 1, 51.0) | {"origin": "another"}]), "another")
    assert again.records.equals(outcome.records), "the first origin stays"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"accuracy__last": 50.1}, "has accuracy.last 50.0 here and 50.1 in theirs.csv; nothing was merged"),
        ({"seconds__train": 1.0}, "has seconds.train 12.5 here and 1.0 in theirs.csv"),
        ({"weights__sha256": "f" * 64}, "has weights.sha256 0000"),
        ({"calibration__ece": 3.0}, "has calibration.ece nothing here and 3.0 in theirs.csv"),
        ({"accuracy__last": 50.1, "images_seen": 3}, r"\((2|3) further contradictions\)|\(1 further contradiction\)"),
    ],
)
def test_one_execution_with_other_values_is_a_contradiction(row, merged, changes, words):
    with pytest.raises(UserError, match=words):
        merged([row()], [row(**changes), row("kd")])


def test_what_may_be_measured_later_and_what_depends_on_the_board_may_differ(row, merged):
    outcome = merged([row(purpose="comparison")], [row(purpose="teacher", transfer__stl10__knn=40.0)])
    assert outcome.present == 1
    with pytest.raises(UserError, match=r"transfer.stl10.knn 41.0 here and 40.0"):
        merged([row(transfer__stl10__knn=41.0)], [row(transfer__stl10__knn=40.0)])


def test_two_executions_of_one_run_may_differ_as_machines_do(row, merged):
    mine = row(provenance__started_at=NOON, provenance__torch="2.6.0")
    other = {"provenance__started_at": LATER, "provenance__torch": "2.7.0", "seconds__train": 99.0}
    assert merged([mine], [row(**other)]).messages == [], "with the same weights there is nothing to report"
    outcome = merged([mine], [row(accuracy=50.0 + TOLERANCE, weights__sha256="f" * 64, **other)])
    assert list(outcome.records["accuracy.last"]) == ["50.0"]
    assert "was done twice, with an accuracy of 50.0 here and 51.0 in theirs.csv" in outcome.messages[0]
    with pytest.raises(
        UserError, match=r"accuracy.last 50.0 here and 51.1 in theirs.csv, which differ by more than 1 p"
    ):
        merged([mine], [row(accuracy=50.1 + TOLERANCE, **other)])
    with pytest.raises(UserError, match=r"has images_seen 14370 here and 9 in theirs.csv"):
        merged([mine], [row(images_seen=9, **other)])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__sha256": "e" * 64}, "protocol 1f9c20ab has data.sha256 dddd.* here .* and eeee"),
        ({"images_seen": 9}, "ce under protocol 1f9c20ab has images_seen 14370 here .* and 9 "),
        ({"control": '{"Control.teacher": "x"}'}, "ce under protocol 1f9c20ab has control {} here"),
    ],
)
def test_a_protocol_with_other_facts_is_a_contradiction(row, merged, changes, words):
    own = row(control="{}")
    with pytest.raises(UserError, match=words):
        merged([own], [row(seed=1, **changes)])
    with pytest.raises(UserError, match=r"both in theirs.csv"):
        merged([row(seed=5, protocol="00000000")], [row(control="{}"), row(seed=1, **changes)])


def test_another_protocol_may_have_other_facts_and_so_may_another_method(row, merged):
    assert merged([row()], [row(seed=1, protocol="00000000", data__sha256="e" * 64)]).added == 1
    assert merged([row()], [row("corsd", images_seen=14400)]).added == 1
