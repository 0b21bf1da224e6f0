"""The statements of gin texts: gin's own parser, with whatever is wrong with a text as one sentence. Nothing is executed."""

from __future__ import annotations

import io
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gin import config_parser

from kdbench.errors import UserError, reason, shortened


@dataclass(frozen=True)
class Reference:
    """A configurable used as a value: `@Cosine()`."""

    name: str

    def __repr__(self) -> str:
        return f"@{self.name}()"


@dataclass(frozen=True)
class Macro:
    """A name that stands for a value that the file gives elsewhere: `%long`."""

    name: str


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


def statements(path: Path) -> list[Any]:
    """The statements of a file as gin's parser yields them, unchecked and unresolved.

    Raises:
        UserError: the file cannot be read, or does not parse.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{label(path)} cannot be read: {reason(error)}") from None
    return statements_in(text, label(path))


def statements_in(text: str, name: str) -> list[Any]:
    """The statements of a text as gin's parser yields them, unchecked and unresolved.

    Args:
        name: name of the text, for messages.

    Raises:
        UserError: it does not parse: the line, and what is wrong with it.
    """
    parsed: list[Any] = []
    line = 1
    # What gin and the tokeniser below it raise depends on the text and the version of Python: whatever comes from here is
    # an error in the text. The end of the text within a statement is a StopIteration, which a loop over the parser would
    # take for the end of the statements.
    try:
        parser = config_parser.ConfigParser(text, _Delegate())
        while True:
            line = _next_statement(text, parser.current_token.start[0])
            if (statement := parser.parse_statement()) is None:
                return parsed
            parsed.append(statement)
    except Exception as error:
        raise UserError(f"{name} does not parse: {_reason(error)} (line {_line(error) or line})") from None


def _reason(error: Exception) -> str:
    """The message of gin's parser, or of the tokeniser below it."""
    if isinstance(error, (tokenize.TokenError, StopIteration)):
        return "EOF in multi-line statement; is a bracket or a quote not closed?"
    if isinstance(error, (RecursionError, MemoryError)):
        return "it is nested too deeply"
    text = str(getattr(error, "msg", None) or error)
    lines = [each.strip() for each in text.splitlines() if each.strip()]
    return shortened(lines[-1]) if lines else type(error).__name__


def _next_statement(text: str, line: int) -> int:
    """The number of the first line from `line` on that is neither empty nor a comment."""
    lines = enumerate(text.split("\n")[line - 1 :], line)
    return next((number for number, each in lines if each.strip() and not each.lstrip().startswith("#")), line)


def _line(error: Exception) -> int | None:
    line = getattr(error, "lineno", None)
    return line if isinstance(line, int) and line > 0 else None


def value_in(written: str) -> Any:
    """The value in a word of the command line; the word itself, as a string, unless all of it is one value of gin."""
    try:
        statement, *others = statements_in(f"A.b = {written}\n", "")
        tokens = list(tokenize.generate_tokens(io.StringIO(written).readline))
    except (UserError, tokenize.TokenError, SyntaxError):
        return written
    is_one = not others and not any(token.type in (tokenize.COMMENT, tokenize.NL) for token in tokens)
    return statement.value if is_one else written


def label(path: Path) -> str:
    """A gin file's name as users know it: "recipe/smoke.gin"."""
    return f"{path.parent.name}/{path.name}"
