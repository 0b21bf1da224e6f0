"""What must be said of a run wherever it is shown."""

import re

from rich.console import Console

from kdbench.report.formats.markdown import markdown
from kdbench.report.formats.terminal import Terminal
from kdbench.report.tables.tables import summarise


def both(results):
    (table,) = summarise(results)
    console = Console(width=80, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(Terminal(table))
    return markdown(table), captured.get()


def test_a_run_that_was_selected_on_test_is_stamped_in_every_table(result):
    clean = [result("ce", 0, 50.0), result("kd", 0, 51.0)]
    peeked = [{**r, "selected_on_test": True, "accuracy.best_test": r["accuracy.last"] + 0.5} for r in clean]
    for text in both(clean):
        assert "TEST SET" not in text
        assert "Best test" not in text
    for text in both([clean[0], peeked[1]]):
        assert "TEST SET USED TO SELECT (Selection.on_test)" in " ".join(text.split())
        assert "51.50" in text, "the column stays also in a narrow terminal"


def test_controls_say_what_they_change(result):
    results = [
        {**result("ce", 0, 50.0), "control": "{}"},
        {**result("ce_3x", 0, 51.0), "control": '{"budget": 3.0}'},
        {**result("born_again", 0, 52.0), "control": '{"teacher": "student"}'},
        result("older", 0, 49.0),
    ]
    expected = (
        "controls that change more than a method's own parameters: born_again (teacher=student), ce_3x (budget=3)"
    )
    for text in both(results):
        assert expected in " ".join(text.split())
    assert "controls that change" not in both(results[:1])[0]


def test_runs_of_another_commit_than_was_submitted_are_named(result):
    sha = {"provenance__commit": "a" * 40}
    results = [
        result("ce", 0, 50.0, **sha, provenance__commit_submitted="a" * 40),
        result("kd", 0, 51.0, **sha, provenance__commit_submitted="b" * 40),
        result("byot", 0, 51.0, **sha, provenance__commit_submitted=None),
        result("rkd", 0, 51.0, **sha),
    ]
    for text in both(results):
        assert re.search(r"not run at the commit of their submission: kd(?!,)", " ".join(text.split()))
    assert "submission" not in both([results[0], results[2]])[0]
