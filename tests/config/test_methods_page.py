"""docs/methods.md."""

from __future__ import annotations

import re

import pytest

from kdbench.config import about, methods_page, places


@pytest.fixture(scope="module")
def page():
    """The text of the document as it should be."""
    return methods_page.page()


def test_the_document_is_that_of_the_files(page):
    document = places.own_root() / "docs" / "methods.md"
    assert document.read_text() == page, "run: python -m kdbench.config.methods_page > docs/methods.md"


def test_every_method_has_one_row_and_one_section(page):
    names = sorted(places.sources())
    assert sorted(re.findall(r"^\| \[`(\w+)`\]\(#\1\) ", page, flags=re.MULTILINE)) == names
    assert sorted(re.findall(r"^## (\w+)$", page, flags=re.MULTILINE)) == names
    assert f"kdbench has {len(names)} methods of its own" in page
    assert (
        "- Variant: `born_again`. Control: KD from an equal network"
        in page.partition("\n## kd\n")[2].partition("\n## ")[0]
    )
    rows = [line for line in page.splitlines() if line.startswith("| [")]
    assert {len(row.split("|")) for row in rows} == {9}


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder in place of kdbench's own root, with two reference files; writes the test of kd and the errors."""

    def write(test, parity=""):
        for file, text in {
            "tests/methods/test_kd.py": test,
            "tests/reference/losses.json": '[{"case": "kd_T4"}, {"case": "kd.T1"}]',
            "tests/reference/losses_feature.json": '[{"case": "at_norm"}]',
            **({methods_page.PARITY: parity} if parity else {}),
        }.items():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(text)
        monkeypatch.setattr(places, "own_root", lambda: tmp_path)
        monkeypatch.setattr(about, "test_of", lambda name: f"tests/methods/test_{name}.py")
        methods_page._known_cases.cache_clear()

    yield write
    methods_page._known_cases.cache_clear()


@pytest.mark.parametrize(
    ("test", "cases"),
    [
        ("def test(reference): reference('kd_T4')", ["kd_T4"]),
        ("@pytest.mark.parametrize('n', ['at_norm', 'kd_T4'])\ndef test(reference, n): reference(n)", ["kd_T4", "at_norm"]),
        ("def test(reference, t): reference(f'kd_{t}')", ["kd_T4"]),
        ("def test(reference, t): reference(f'kd.{t}')", ["kd.T1"]),
        ("def test(t): print(f'kd_{t}', f'{t}', 'kd_T5')", []),
        ("def test(reference): reference('kdxT1')", []),
    ],
)  # fmt: skip
def test_the_cases_are_those_that_the_test_names(clone, test, cases):
    clone(test)
    assert methods_page.cases_of("kd") == cases


def test_the_largest_error_is_that_of_the_method_s_own_test(clone):
    head = "case,test file,error of loss,error of gradient norms\n"
    rows = (
        "kd_T4,tests/methods/test_kd.py,1.5e-16,2.0e-09",
        "kd_T4,tests/methods/test_at.py,1.0,1.0",
        "x,tests/methods/test_kd.py,,0.0",
    )
    clone("", head + "\n".join(rows))
    assert methods_page.largest_error("kd") == "2.0e-09"
    assert methods_page.largest_error("rkd") == ""


def test_without_recorded_errors_there_is_none(clone):
    clone("")
    assert methods_page.largest_error("kd") == ""
    assert methods_page.cases_of("rkd") == [], "it has no test there"
