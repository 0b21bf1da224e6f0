"""Words that read as translated, and what to write instead: none may come back in messages, help, docs and gin files."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CAPITAL = r"; (?!None\b)[A-Z][a-z]+\b"
OF_SOURCES = ("methods.md",)
"""Generated documents with lists of projects, whose names may follow a semicolon."""
INSTEAD = {
    r"\bgo(es)? on (with|until|from|as)\b": "resumes, continues",
    r"(?<!there )\b(is|are) no (\w+ )?(name|file|folder|run|number|method|measure|teacher|state|dictionary)s?\b": "is not a …",
    r"\banew\b|\bonce more\b": "again, re-run, from scratch",
    r"\b(who|what)ever\b": "name the actor, or rewrite",
    r"\bdifferences? to (ce|the baseline)\b": "difference from ce",
    r"\bcomma lists?\b": "comma-separated list",
    r"\bstands? (alone|before|behind|beside)\b": "is listed, comes before",
    r"\bbesides?\b": "next to, in addition to, apart from",
    r"\bis told\b|\buntold\b|\bsay whose\b": "is reported, is recorded",
    r"\bfits? no\b": "does not fit any",
    r"\b(is|are) there twice\b": "is defined twice",
    r"\bnot to be had\b": "is not available",
    r"\btake no\b|\btakes no\b": "does not accept",
    r"\btold apart\b": "distinguished",
    CAPITAL: "no capital after a semicolon",
}


def messages(path):
    """The string literals of a Python file apart from docstrings, with their line numbers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


@cache
def texts():
    """All of them, with their places: path, line, text."""
    return list(_texts())


def _texts():
    for path in sorted((ROOT / "kdbench").rglob("*.py")):
        yield from ((path, line, text) for line, text in messages(path))
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "gin").rglob("*.gin"))):
        lines = path.read_text(encoding="utf-8").splitlines()
        yield from ((path, number, line) for number, line in enumerate(lines, 1))


@pytest.mark.parametrize("pattern", INSTEAD)
def test_a_word_does_not_come_back(pattern):
    checked = (each for each in texts() if pattern != CAPITAL or each[0].name not in OF_SOURCES)
    bad = [f"{path.relative_to(ROOT)}:{line}: {text}" for path, line, text in checked if re.search(pattern, text)]
    assert not bad, f"write instead: {INSTEAD[pattern]}"
