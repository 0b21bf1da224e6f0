from __future__ import annotations

import html
import io
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from kdbench.report.formats.markdown import code, escape, markdown
from kdbench.report.formats.readme import made_with, page
from kdbench.report.formats.terminal import Terminal
from kdbench.report.records import cell
from kdbench.report.request import Request
from kdbench.report.tables.tables import Table, summarise
from kdbench.words import printable

NONE = "\u2013"
HOSTILE = "kd|x`y`\n<script>alert(1)</script> [red]*b* _i_ a\\|b \x1b[31m"


@pytest.fixture
def table(result) -> Table:
    results = [result("ce", seed, 50.0 + seed, accuracy__best_val=51.0) for seed in range(3)]
    results += [result("kd", seed, 52.0 + seed / 2, taught=True, accuracy__best_val=51.5) for seed in range(3)]
    results += [result("crd", 0, 50.25, taught=True, method__parameters='{"CRD.negatives": 16384}')]
    results += [
        result(
            "crd", 1, None, taught=True, status="failed", error="boom", method__parameters='{"CRD.negatives": 16384}'
        )
    ]
    results += [result("dkd", 0, None, taught=True, status="failed", error="out of memory")]
    (made,) = summarise(results)
    return made


def grid(text: str) -> list[dict[str, str]]:
    """The cells of the first table in a Markdown text, by header."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def terminal(table: Table, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(Terminal(table))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_markdown_by_hand(table):
    first = grid(markdown(table))
    assert [row["Method"] for row in first] == ["kd", "ce", "crd (negatives=16384)", "dkd"]
    assert [row["#"] for row in first] == ["1", "2", NONE, NONE]
    assert first[0] == {
        **{"#": "1", "Method": "kd", "Teacher": "resnet20 (61.3)", "n": "3", "Accuracy %": "52.50 ± 1.24"},
        **{
            "Δ ce": "+1.50 ± 1.24",
            "p": "0.035",
            "Best val %": "51.50",
            "Images": "14.4k",
            "Train s": "12.5",
            "Images/s": "1.15k",
        },
    }
    assert (first[1]["Teacher"], first[1]["Δ ce"]) == (NONE, NONE)
    assert (first[2]["n"], first[2]["Accuracy %"], first[2]["Δ ce"]) == ("1, 1 failed", "50.25", "+0.25")
    assert (first[3]["n"], first[3]["Accuracy %"], first[3]["Δ ce"]) == ("0, 1 failed", "failed", NONE)
    assert first[3]["Train s"] == "failed"


def test_notes_are_a_list_below(table):
    notes = [line for line in markdown(table).splitlines() if line.startswith("- ")]
    assert notes[:2] == [
        "- failed: crd (negatives=16384), seed 1, run crd1: boom",
        "- failed: dkd, seed 0, run dkd0: out of memory",
    ]
    assert any("n = 1" in note for note in notes)


def test_columns_with_nothing_to_say_are_left_out(result):
    (made,) = summarise([result("ce", cost__images_per_second=None)])
    assert list(grid(markdown(made))[0]) == ["Method", "n", "Accuracy %", "Images", "Train s"]


def test_a_difference_of_nothing_has_no_minus(result):
    (made,) = summarise([result("ce", 0, 50.0), result("kd", 0, 49.999)])
    assert [row["Δ ce"] for row in grid(markdown(made))] == [NONE, "+0.00"]


def test_hostile_names_stay_in_their_cell(result):
    names = {"student": HOSTILE, "recipe": HOSTILE, "teacher": HOSTILE, "teacher.sha256": "c"}
    failed = result(HOSTILE, 1, None, run="bad", status="failed", error=HOSTILE) | names
    (made,) = summarise([result(HOSTILE, run="odd") | names, failed])
    text = markdown(made)
    (row,) = grid(text)
    assert row["n"] == "1, 1 failed"
    assert "<" not in text
    assert "\x1b" not in text
    assert not re.search(r"(?<!\\)`", text)
    assert row["Method"] == row["Teacher"] == escape(cell(HOSTILE))
    for line in terminal(made, 80):
        assert "\x1b" not in line
    assert "[red]*b*" in " ".join("".join(terminal(made, 300)).split())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("a\nb", "a b"),
        ("`x`", r"\`x\`"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("tiny_imagenet", "tiny_imagenet"),
        ("_x_", r"\_x\_"),
        ("a\\|b", r"a\\\|b"),
    ],
)
def test_escape(text, shown):
    assert escape(text) == shown


def rendered(text: str) -> str:
    """The text that a reader of the Markdown sees, without tags."""
    page = MarkdownIt("commonmark").enable("table").render(text)
    return html.unescape(re.sub("<[^>]*>", "", page)).strip()


@settings(deadline=None)
@given(st.text(alphabet=st.characters() | st.sampled_from("|`*_<>&[]()\\~$#!-+.1 \n"), max_size=30))
@example(HOSTILE)
def test_a_reader_sees_the_name_as_it_is(name):
    seen = printable(f"a{name}a")
    assert rendered(f"| {escape(f'a{name}a')} |\n|---|\n") == seen
    assert rendered(f"x\n\n- {escape(f'a{name}a')}\n").split("\n")[-1] == seen
    assert rendered(f"- x {code(f'a{name}a')}").removeprefix("x ") == seen


def test_code_spans_hold_backticks():
    assert code("kdbench run") == "`kdbench run`"
    assert code("a`b``c") == "``` a`b``c ```"


@pytest.mark.parametrize("width", [80, 100, 120])
def test_terminal_breaks_no_number_and_fits(table, width):
    lines = terminal(table, width)
    assert all(len(line.rstrip()) <= width for line in lines)
    for name, accuracy, difference in [
        ("kd ", "52.50 ± 1.24", "+1.50 ± 1.24"),
        ("ce ", "51.00 ± 2.48", NONE),
        ("dkd ", "failed", NONE),
    ]:
        (line,) = [line for line in lines if re.match(rf"\S  {name}", line)]
        assert accuracy in line
        assert difference in line
    assert "failed: dkd, seed 0, run dkd0: out of memory" in lines


def test_terminal_drops_the_least_important_columns_first(table):
    wide, narrow = terminal(table, 140), terminal(table, 80)
    assert "Images/s" in wide[1]
    assert not any("wider" in line for line in wide)
    assert "Images/s" not in narrow[1]
    assert "Δ ce" in narrow[1]
    assert "Teacher" in narrow[1]
    assert any("a wider terminal also shows" in line and "Images/s" in line for line in narrow)


def test_numbers_end_in_one_column(table):
    lines = terminal(table, 140)
    head = next(i for i, line in enumerate(lines) if "Accuracy %" in line)
    edge = lines[head].index("Accuracy %") + len("Accuracy %")
    for line in lines[head + 2 : head + 6]:
        assert line[edge - 1] != " "
        assert line[edge : edge + 2] == "  "


def test_long_names_are_broken_before_numbers(result):
    many = ", ".join(f'"KD.parameter{i}": {i}' for i in range(6))
    made = [result("kd", seed, 60 + seed, taught=True, method__parameters=f"{{{many}}}") for seed in range(3)]
    (table,) = summarise([*made, *(result("ce", seed, 50.0) for seed in range(3)), result("x" * 200, 0, 40.0)])
    lines = terminal(table, 80)
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert any("61.00 ± 2.48" in line and "+11.00 ± 2.48" in line for line in lines)


def legend(result, columns=None, baseline="ce", **changes):
    rows = [result(m, s, 50.0 + s * (m == "kd"), **changes) for m in ("ce", "kd") for s in range(2)]
    return page(summarise(rows, baseline), 4, b"", Request(columns, baseline), []).decode()


def test_the_page_explains_the_columns_that_it_shows_and_no_others(result):
    text = legend(result, ("accuracy", "top5"))
    assert "- *Top-5 %*: " in text
    assert "Δ" not in text
    assert "Train s" not in text
    text = legend(result, baseline="kd")
    assert "- *Δ kd*: difference in accuracy from kd, paired by seed\n" in text
    assert "- *p*: p value of the paired t test of the difference from kd" in text
    assert "Best val" not in text, "which no run has"
    shown = set(grid(text)[0])
    assert {entry.replace("\\", "") for entry in re.findall(r"^- \*([^*]+)\*: ", text, re.MULTILINE)} == shown


def test_the_page_names_the_release_where_there_is_no_commit(result):
    text = legend(result, provenance__kdbench="0.4.0", provenance__commit=None)
    assert ", kdbench 0.4.0\n" in text
    assert "unknown" not in text
    assert ", commit `abc`\n" in legend(result, provenance__kdbench="0.4.0", provenance__commit="abc")


def test_what_a_page_was_made_with_is_read_from_it(result):
    for request in (Request(), Request(("ece", "accuracy")), Request(None, "kd"), Request(("p",), "kd")):
        assert made_with(legend(result, request.columns, request.baseline)) == request
    assert made_with("Generated by `kdbench leaderboard colums=x`") == Request()


def test_teachers_are_in_a_section_of_their_own_at_the_end(result):
    teacher = result("ce", 0, 60.0, student="big", run="big", dataset="a", purpose="teacher")
    text = page(summarise([result("ce"), teacher]), 2, b"", Request(), []).decode()
    assert re.findall("^##+ (.*)$", text, re.MULTILINE) == [
        "digits",
        "digits · cnn · recipe short · protocol 1f9c20",
        "Teachers",
        "a · big · recipe short · protocol 1f9c20",
    ]
