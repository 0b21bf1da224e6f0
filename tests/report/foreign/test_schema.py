import csv
import datetime
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.errors import UserError
from kdbench.report import records
from kdbench.report.foreign import schema
from kdbench.report.foreign.source import Source, read

BOARD = Path(__file__).parents[3] / "leaderboard" / "results.csv"
LATER = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=9)).isoformat(timespec="seconds")


def test_the_committed_rows_are_accepted_as_they_are():
    rows = schema.rows(read(BOARD))
    assert set(rows["origin"]) == {f"leaderboard/results.csv {read(BOARD).origin.split()[-1]}"}
    assert records.to_csv(records.canonical(rows.drop(columns="origin"))) == BOARD.read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"accuracy__last": 100.5}, "line 2: accuracy.last is '100.5', which cannot have been measured"),
        ({"exits__ensemble": -1.0}, "line 2: exits.ensemble is '-1.0', which cannot have been measured"),
        ({"accuracy__last": "nan"}, "accuracy.last is 'nan', which is not a number"),
        ({"accuracy__last": None}, "line 2: accuracy.last is empty"),
        ({"images_seen": -1}, "images_seen is '-1', which cannot have been measured"),
        ({"images_seen": 1.5}, "images_seen is '1.5', which is not an integer"),
        ({"images_seen": 10**30}, "images_seen is '1000000000000000000000000000000', which is not an integer"),
        ({"seed": "-1"}, "seed is '-1', which cannot have been measured"),
        ({"protocol": "1F9C20AB"}, "protocol is '1F9C20AB', which is not eight hexadecimal digits"),
        ({"protocol": ""}, "protocol is empty"),
        ({"run": "../../evil"}, "run is '../../evil', which is not the id of a run of ce-digits with seed 0"),
        ({"run": "ce-digits-cnn-s0-0123456789", "seed": 7}, "which is not the id of a run of ce-digits with seed 7"),
        ({"method": "../ce"}, "method is '../ce', which cannot be a name"),
        ({"overrides": "[1]"}, "overrides is '[1]', which is not a JSON object"),
        ({"overrides": "[" * 15000}, "which is not a JSON object"),
        ({"data__sha256": "abc"}, "data.sha256 is 'abc', which is not a SHA-256"),
        ({"provenance__clean": "yes"}, "provenance.clean is 'yes', which is not True or False"),
        ({"provenance__command": "x" * 20_001}, "which has more than 20,000 characters"),
        ({"provenance__finished_at": "tomorrow"}, "which is not a time in ISO 8601"),
        ({"provenance__finished_at": LATER}, "which lies in the future"),
        ({"status": "done"}, "status is 'done', which is not finished or failed"),
        ({"robustnes__corruptions": 3.0}, "has the column 'robustnes.corruptions', which kdbench does not declare"),
        ({"exits__*": 3.0}, "which kdbench does not declare"),
    ],
)
def test_what_no_run_can_have_written_is_one_sentence(row, source, changes, words):
    with pytest.raises(UserError) as caught:
        schema.rows(source(row(**changes)))
    assert words in str(caught.value)
    assert str(caught.value).startswith("theirs.csv")
    assert len(str(caught.value).splitlines()) == 1


def test_control_characters_are_refused_and_shown_as_escapes(row, source):
    with pytest.raises(UserError, match=r"line 2: error is 'a\\x1b\[2J', which has control characters"):
        schema.rows(source(row(error="ESC", status="failed"), edit=lambda text: text.replace("ESC", "a\x1b[2J")))
    with pytest.raises(UserError, match="control characters"):
        schema.rows(source(row(error="MARK", status="failed"), edit=lambda text: text.replace("MARK", "a\u202eb")))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda text: "", "is empty"),
        (lambda text: text.splitlines()[0], "has no rows"),
        (lambda text: text + 'a,"b', "is not CSV"),
        (lambda text: text + "a,b\n", "line 3 has 2 cells"),
        (lambda text: text.replace("images_seen", "images_sen"), "lacks the column images_seen"),
        (lambda text: text.replace("cnn", "\udcff"), "is not UTF-8"),
        (lambda text: text.replace("\n", "".join(f",exits.{n}" for n in range(1500)) + "\n", 1), "may have 1,000"),
    ],
)
def test_what_is_not_a_results_file_is_one_sentence(row, source, edit, words):
    with pytest.raises(UserError, match=words):
        schema.rows(source(row(), edit=edit))


def test_a_run_twice_counts_once_or_is_a_contradiction(row, source):
    def twice(text):
        return text + text.splitlines()[1] + "\n"

    assert len(schema.rows(source(row(), edit=twice))) == 1
    words = "the run 'ce-digits-cnn-s0-.{10}' has accuracy.last '50.0' and '51.0' in line 3; nothing was merged"
    with pytest.raises(UserError, match=words):
        schema.rows(source(row(), edit=lambda text: text + text.splitlines()[1].replace("50.0", "51.0") + "\n"))


def test_what_others_have_confirmed_is_not_confirmed_here_and_the_way_of_a_row_is_kept(row, source):
    theirs = row(origin="first.zip 00000000", reproduced__status="confirmed", reproduced__identical=True)
    (made,) = schema.rows(source(theirs)).to_dict("records")
    assert made["origin"] == "theirs.csv 12345678, from first.zip 00000000"
    assert not [name for name in made if name.startswith("reproduced")]


@settings(max_examples=40)
@given(data=st.data())
def test_whatever_a_file_holds_it_is_rows_or_one_sentence_and_touches_nothing(data, touched):
    header, *lines = list(csv.reader(BOARD.open(newline="")))[:3]
    cells = [list(line) for line in lines]
    for _ in range(data.draw(st.integers(1, 3))):
        line = data.draw(st.sampled_from(cells))
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.text(max_size=5) | st.from_regex(r"-?\d+e?\d*"))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *cells])
    source = Source("theirs.csv", "theirs.csv 12345678", text.getvalue().encode(errors="replace"))

    def outcome():
        try:
            return schema.rows(source)
        except UserError as error:
            return str(error)

    outcome()  # imports what reading needs
    made, events = touched(outcome)
    assert events == []
    if isinstance(made, str):
        assert len(made.splitlines()) == 1
        assert made.isprintable()
