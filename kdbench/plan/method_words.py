"""The words of `methods=`: names, "all", families ("family/relation"), and "-NAME" for what is left out of these. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kdbench.config import BASELINE, about, bindings, defects, places
from kdbench.errors import UserError, unknown
from kdbench.words import count

ALL = "all"
EXCLUDED = "-"
"""Begins a word that leaves a method or a family out."""


def expanded(words: Sequence[str]) -> tuple[str, ...]:
    """The methods that the words select, each once: those of "all" first, the others in the order of the words.

    A variant (another method's class with other values) is only included when named.

    Raises:
        UserError: an unknown method or family, a word that leaves out what nothing selects, or nothing is selected.
    """
    for name in (word.removeprefix(EXCLUDED) for word in words):
        if "/" in name and not _is_group(name):
            raise unknown("family of methods", name, [f"{about.PREFIX}{family}" for family in families()])
        if not _is_group(name):
            bindings.of_method(name)  # an error in its files is reported before one in the words about it
    included = sorted((word for word in words if not word.startswith(EXCLUDED)), key=lambda word: word != ALL)
    chosen = dict.fromkeys(name for word in included for name in _of_word(word))
    for word in words:
        if not word.startswith(EXCLUDED):
            continue
        out = _of_word(word.removeprefix(EXCLUDED))
        if not chosen.keys() & set(out):
            raise UserError(f"methods=…,{word} leaves out nothing: the other words do not select it")
        chosen = {name: None for name in chosen if name not in out}
    if not chosen:
        raise UserError(f"methods={','.join(words)} leaves no method")
    return tuple(chosen)


def sizes(words: Iterable[str]) -> tuple[str, ...]:
    """A sentence for each word that selects several methods: how many they are."""
    return tuple(
        f"methods={word} selects {count(len(_of_word(word)), 'method')}; see them with: kdbench list methods"
        for word in words
        if _is_group(word)
    )


def left_out(words: Iterable[str]) -> tuple[str, ...]:
    """A sentence for each file that a request leaves out because of an error in it; those of methods where it asks for many.

    Args:
        words: the words of `methods=`.
    """
    if not any(map(_is_group, words)):
        return tuple(defects.of_extensions())
    sources = {name: each for name, each in defects.of_methods().items() if not bindings.is_variant(name)}
    return (*sources.values(), *places.misnamed("method").values(), *defects.of_extensions())


def families() -> dict[str, list[str]]:
    """The methods by family, without variants and files with an error."""
    return about.families(_plain())


def _is_group(word: str) -> bool:
    return word == ALL or word.startswith(about.PREFIX)


def _of_word(word: str) -> list[str]:
    if word == ALL:
        return sorted(_plain(), key=lambda name: (name != BASELINE, name))
    return about.of_family(word, _plain()) if _is_group(word) else [word]


def _plain() -> list[str]:
    broken = defects.of_methods()
    return [name for name in places.members("method") if not bindings.is_variant(name) and name not in broken]
