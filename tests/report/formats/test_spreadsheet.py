import csv
import io

import pytest

from kdbench.report.formats.spreadsheet import document


def cells(*row):
    (read,) = csv.reader(io.StringIO(document([row])))
    return read


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", " =1", '=HYPERLINK("x")', "\x00=1"[1:]]
)
def test_a_text_that_would_be_a_formula_begins_with_an_apostrophe(text):
    (cell,) = cells(text)
    assert cell.startswith("'")
    assert cell[1:].strip() == text.strip()


def test_numbers_stay_numbers_and_none_is_empty():
    assert cells(-0.5, 3, None, True, "kd", "a-b") == ["-0.5", "3", "", "True", "kd", "a-b"]


def test_texts_are_printable():
    assert cells("a\x1b[31m\u202e\nb") == [r"a\x1b[31m\u202e b"]
