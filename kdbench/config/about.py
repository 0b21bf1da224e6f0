"""The facts that a method file's docstring gives: paper, family, loss, sources, choices and repaired faults. No torch here.

The docstring is a title, a paragraph that names the paper, and entries, each on a line of its own:

    Family: relation
    Loss: CE + β · Σ …
    Choice: … (a longer entry goes on in indented lines)

A file without entries is a method too. They are read from the source, which is not run.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kdbench.config import bindings, ginfile, places, signature, syntax
from kdbench.errors import UserError, unknown

ENTRIES = ("Family", "Base", "Loss", "Source", "Choice", "Fault")
"""The entries of a docstring; those that are given several times are kept in order."""
FAMILIES = ("label", "regulariser", "logit", "feature", "relation", "self", "online", "training")
"""The families of kdbench's own methods, in the order of the documents."""
OTHER = "other"
"""The family of a method whose docstring names none."""
PREFIX = "family/"
"""Begins a word of `methods=` that selects a family."""

_READ = {
    "stages": "stage maps",
    "stage_shapes": "stage maps",
    "pooled": "pooled features",
    "preactivations": "pre-activations",
    "stem": "the map before the first stage",
    "classify": "its classifier on its own",
    "run_from": "branches",
    "fresh_stages": "branches",
    "stage_modules": "branches",
    "last_bn": "the last BN of each stage",
}
"""What a method asks of its networks, by the name that its source reads it with."""


@dataclass(frozen=True)
class About:
    """The facts of a docstring; empty where it does not give them.

    Attributes:
        title: the first line.
        paper: the paragraph after it, in one line.
        family: one word; "other" if there is none.
        loss: a formula.
        sources, choices, faults: their entries.
        base: the method that this one changes; "" if there is none.
    """

    title: str
    paper: str
    family: str
    loss: str
    sources: tuple[str, ...]
    choices: tuple[str, ...]
    faults: tuple[str, ...]
    base: str = ""


def of_docstring(text: str) -> About:
    """The facts of a method file's docstring, cleaned as `ast.get_docstring` does. Any text has them: nothing is refused."""
    title, _, rest = text.strip().partition("\n")
    entries: dict[str, list[str]] = {name: [] for name in ENTRIES}
    paragraph: list[str] = []
    last: list[str] | None = None
    for line in rest.strip().splitlines():
        name, colon, value = line.partition(":")
        if colon and name in entries:
            last = entries[name]
            last.append(value.strip())
        elif last and line[:1].isspace() and line.strip():
            last[-1] = f"{last[-1]} {line.strip()}".strip()
        else:
            last = None
            paragraph.append(line.strip())
    family = next((value for value in entries["Family"] if places.is_name(value)), OTHER)
    paper = " ".join("\n".join(paragraph).strip().partition("\n\n")[0].split())
    base = next((value for value in entries["Base"] if places.is_name(value)), "")
    loss, sources, choices, faults = (tuple(filter(None, entries[name])) for name in ENTRIES[2:])
    return About(title.strip(), paper, family, " ".join(loss), sources, choices, faults, base)


@cache
def of_file(path: Path) -> About:
    """The facts of a method file.

    Raises:
        UserError: it does not parse.
    """
    return of_docstring(ast.get_docstring(signature.parse(path)) or "")


def of_method(name: str) -> About:
    """The facts of a method; those of the method whose class it uses if it is a variant.

    Raises:
        UserError: the method is unknown, or its file does not parse.
    """
    return of_file(places.sources()[bindings.method_source(name)])


def base(name: str) -> str:
    """The method that a method changes: that whose gin file a variant includes, or the docstring's; "" for none.

    Also "" for a method that is not there, such as that of somebody else's rows, or that has an error.
    """
    with suppress(UserError, RecursionError):
        if not bindings.is_variant(name):
            return of_method(name).base
        return next((path.stem for path in ginfile.includes(bindings.member(name))), "")
    return ""


def families(names: Iterable[str]) -> dict[str, list[str]]:
    """Names of methods by family: kdbench's own families in their order, then those of users; names are sorted."""
    by_family: dict[str, list[str]] = {}
    for name in sorted(names):
        by_family.setdefault(of_method(name).family, []).append(name)
    order = [*FAMILIES, *sorted({*by_family} - {*FAMILIES, OTHER}), OTHER]
    return {family: by_family[family] for family in order if family in by_family}


def of_family(word: str, names: Iterable[str]) -> list[str]:
    """The methods among `names` that a word such as "family/relation" selects.

    Raises:
        UserError: none of them is of that family.
    """
    by_family = families(names)
    family = word.removeprefix(PREFIX)
    if family not in by_family:
        raise unknown("family of methods", family, by_family, "kdbench list methods")
    return by_family[family]


def needs(source: str) -> list[str]:
    """What a method file asks for apart from the student's logits, in a fixed order: "a teacher", "stage maps", "branches"."""
    nodes = list(ast.walk(signature.parse(places.sources()[source])))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    words = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    read = {*words, *(node.attr for node in attributes)}
    teacher = ["a teacher"] if signature.of_method(source).attributes.get("needs_teacher") else []
    wanted = [*teacher, *(phrase for name, phrase in _READ.items() if name in read)]
    if any(node.attr == "exits" and "teacher" in ast.unparse(node.value) for node in attributes):
        wanted.append("exits of the teacher")
    return list(dict.fromkeys(wanted))


def passes(source: str) -> int:
    """The images that pass through the student for each anchor: what the method declares, or all that a step draws for it."""
    attributes = signature.of_method(source).attributes
    if attributes.get("passes") is not None:
        return int(attributes["passes"])
    return int(attributes.get("images_per_anchor", 1)) * len(attributes.get("views", ("recipe",)))


def test_of(source: str) -> Path | None:
    """The test of a method of kdbench's own that compares it with its reference; None for other methods."""
    path = places.sources()[source]
    return Path("tests", "methods", f"test_{source}.py") if places.origin(path) == places.BUILT_IN else None


def comments(name: str) -> dict[str, str]:
    """The comments behind the values in a method's gin file, which name their sources, by place ("method/kd.gin:3")."""
    return _comments(places.member("method", name))


def _comments(path: Path) -> dict[str, str]:
    own = dict(_comments_of(path))
    for included in ginfile.includes(path):
        own |= _comments(included)
    return own


def _comments_of(path: Path) -> Iterator[tuple[str, str]]:
    lines = io.StringIO(path.read_text(encoding="utf-8"))
    try:
        for token in tokenize.generate_tokens(lines.readline):
            if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip():
                yield f"{syntax.label(path)}:{token.start[0]}", token.string.lstrip("#").strip()
    except (tokenize.TokenError, SyntaxError):  # gin's own parser, which reads the values, reports it
        return
