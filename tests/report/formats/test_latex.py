"""tables.tex: read by a small parser everywhere, and by pdflatex where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.config import places
from kdbench.report.formats.latex import document, escape, latex, latex_section
from kdbench.report.tables import overall, published
from kdbench.report.tables.cells import Cells
from kdbench.report.tables.sections import Section, Span
from kdbench.report.tables.tables import summarise

HOSTILE = r"a_b%c&d#e$f{g}h~i^j\k[l]m*n<o>p|q`r's--t†"


@pytest.fixture
def hostile(result):
    names = {"student": HOSTILE, "recipe": HOSTILE, "dataset": HOSTILE}
    made = [result(HOSTILE, seed, 50.0 + seed**2, **names, run=f"{HOSTILE}{seed}") for seed in range(3)]
    return [*made, result("ce", 0, None, status="failed", error=HOSTILE, **names), result("[x]", 0, 40.0, **names)]


def rows(text):
    """The cells of each tabular, and on the way what must hold of any LaTeX."""
    text = re.sub(r"(?<!\\)%.*", "", text)
    bare = re.sub(r"\\[&%$#_{}\\]", "", text)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[#_^~]", re.sub(r"\\label\{[^}]*\}", "", bare))
    assert re.findall(r"\\begin\{(\w+)\}", text).count("tabular") == re.findall(r"\\end\{(\w+)\}", text).count(
        "tabular"
    )
    grids = []
    for columns, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        lines = [line.strip().removesuffix(r"\\") for line in body.splitlines() if line.strip().endswith(r"\\")]
        lines = [line for line in lines if not line.startswith(r"\multicolumn")]  # which is no row of cells
        cells = [re.split(r"(?<!\\)&", line) for line in lines]
        assert {len(row) for row in cells} == {len(columns)}
        assert not any(re.match(r"\s*[\[*]", row[0]) for row in cells), r"an argument of \\"
        grids.append([[cell.strip() for cell in row] for row in cells])
    return grids


def test_a_table_by_hand(result):
    ce = [result("ce", seed, 50.0 + seed) for seed in range(3)]
    kd = [result("kd_x", seed, a, provenance__clean=False) for seed, a in enumerate((49.0, 48.0, 50.0))]
    (made,) = summarise(ce + kd)
    ((head, *body),) = rows(latex(made, ["accuracy", "delta", "p"]))
    assert head == ["#".replace("#", r"\#"), "Method", "n", r"Accuracy \%", r"$\Delta$ ce", "p"]
    assert body == [
        ["1", "ce", "3", r"51.00 $\pm$ 2.48", "--", "--"],
        ["1", r"kd\_x $\dagger$", "3", r"49.00 $\pm$ 2.48", r"$-$2.00 $\pm$ 2.48", "0.074"],
    ]
    text = latex(made)
    assert r"\caption{digits, student cnn, recipe short, protocol 1f9c20. Means over" in text
    assert r"$\dagger$ with uncommitted changes in the code\par" in text
    assert "% kd_x: configuration " in text
    assert "kd_x0, kd_x1, kd_x2" in text


def test_hostile_names_stay_in_their_cell(hostile):
    ((_, *body),) = rows(document(summarise(hostile)))
    assert len(body) == 3


def made_section():
    sources = ["A long README (Doe et al., 2020)"] * 2 + ["another_long_README_of_theirs"]
    return Section(
        "Published, again",
        (Span("In units of "), Span("our", "emphasis"), Span(" s/√n, from "), Span("a_b.csv", "file"), Span(".")),
        (
            Cells("Table", ["cifar100 · resnet8 · 55a529bf"] * 2 + ["digits · resnet8 · 21286f2e"], number=False),
            Cells("Row", ["kd", "ce_x", "kd, teacher resnet20 (69.1)"], number=False),
            Cells("Standard errors", ["-1.0", "+0.5", "–"]),
            Cells("Source", sources, number=False),
        ),
        "What differs:",
        ("50 % of it (kd)",),
        "Not compared:",
        ("x_1", "y"),
    )


def test_a_section_by_hand():
    text = latex_section(made_section())
    assert (
        r"\caption{Published, again. In units of \emph{our} s/$\surd$n, from \texttt{a\_b.csv}.}"
        "\n  \\label{tab:published-again}" in text
    )
    ((head, *body),) = rows(text)
    assert head == ["Row", r"\shortstack[r]{Standard\\errors}", "Source"]
    assert [re.sub(r"\\parbox\[t\]\{[\d.]+\\linewidth\}", "BOX", row[0]) for row in body] == [
        r"BOX{\raggedright kd\strut}",
        r"BOX{\raggedright ce\_\allowbreak{}x\strut}",
        r"BOX{\raggedright kd, teacher resnet20 (69.1)\strut}",
    ]
    assert [row[1] for row in body] == ["$-$1.0", "+0.5", "--"]
    assert re.findall(r"\\multicolumn\{3\}\{l\}\{\\emph\{(.*?)\}\}", text) == [
        r"cifar100 $\cdot$ resnet8 $\cdot$ 55a529bf",
        r"digits $\cdot$ resnet8 $\cdot$ 21286f2e",
    ], "once for all rows of a table"
    below = text.partition("minipage")[2]
    for note in ("What differs:", r"50 \% of it (kd)", r"Not compared: x\_1; y."):
        assert note in below


def test_long_texts_that_come_again_are_numbers_that_the_notes_explain():
    versions = made_section()
    text = latex_section(
        replace(versions, columns=tuple(replace(column, texts=column.texts[:2] * 2) for column in versions.columns))
    )
    ((_, *body),) = rows(text)
    assert [row[-1] for row in body] == ["{[}1{]}"] * 4
    assert "{[}1{]} A long README (Doe et al., 2020)\\par" in text


def test_a_section_without_a_table_is_a_comment():
    text = latex_section(replace(made_section(), columns=(), notes=()))
    assert text.splitlines() == [
        "% Published, again: In units of our s/√n, from a_b.csv.",
        "% Not compared: x_1; y.",
    ]


def test_escape():
    assert escape("a_b & 5 % {x} ~^\\") == r"a\_b \& 5 \% \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert escape("-1.5 ± 0.2 --x [0]*") == r"$-$1.5 $\pm$ 0.2 -{}-x {[}0{]}{*}"


@given(st.text(alphabet=st.characters(codec="ascii") | st.sampled_from("±Δ–†‡§·"), max_size=30))
def test_any_text_leaves_a_row_a_row(text):
    ((row,),) = rows(rf"\begin{{tabular}}{{ll}}{chr(10)}{escape(text)} & x \\{chr(10)}\end{{tabular}}")
    assert row[1] == "x"


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_pdflatex_takes_it(hostile, result, tmp_path):
    """And everything stays between the margins."""
    if not shutil.which("kpsewhich") or subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).returncode:
        pytest.skip("needs booktabs")
    tables = document([*summarise(hostile), *summarise([result("ce", seed, 50.0 + seed) for seed in range(3)])])
    names = {"student": ("resnet20", "wrn_40_1"), "teacher": ("resnet56", "wrn_40_2")}
    others = [
        result(method, seed, 70.0 + 2 * seed, dataset="cifar100", student=student, images_seen=12_000_000, **taught)
        for student, teacher in zip(*names.values(), strict=True)
        for method, taught in (("ce", {}), ("kd", {"teacher": teacher, "teacher__accuracy": 72.3}))
        for seed in range(3)
    ]
    shared = summarise(others)
    theirs = published.compare(shared, published.read(places.own_root() / "leaderboard" / published.CSV))
    assert len(theirs) > 4
    over = overall.aggregate(shared)
    assert over
    behind = [overall.section(over), published.section(theirs, Span("published.csv", "file"))]
    behind += [published.section(theirs[:1], Span("x")), made_section()]
    tables += "\n".join(map(latex_section, behind))
    text = "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\n" + tables + "\\end{document}\n"
    (tmp_path / "a.tex").write_text(text)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
