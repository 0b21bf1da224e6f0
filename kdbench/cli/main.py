"""The entry point of the command line: runs a command, and turns errors into sentences and exit statuses."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext

from kdbench.cli import arguments as arguments_
from kdbench.cli import commands, completion
from kdbench.cli.printing import print_text, warn
from kdbench.errors import RunError, UserError, file_and_reason, reason
from kdbench.output import lenient

_OF_THE_USER = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EFBIG),
)
"""Errors of the file system that are about the folders and files of the command; a run that fails later ends in RunError."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 success, 1 a run failed or was lost, 2 invalid input, 3 other processes still do some of the runs, 130 interrupted.
    """
    if completion.REQUESTED in os.environ:
        completion.answer()
    _replace_what_cannot_be_encoded()
    words = sys.argv[1:] if words is None else words
    try:
        arguments = arguments_.parse(words)
        from kdbench.config import places  # not for --help and typos, which are to be fast

        places.add_plugins(arguments.plugins)
        command = commands.load(arguments.command)
        with lenient() if arguments.command in commands.WORK else nullcontext():
            return command.run(arguments)
    except BrokenPipeError:  # the reader of a pipe (head, less) has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _end("interrupted; finished runs are kept, and the same command resumes the rest", 130)
    except (UserError, RunError, OSError, MemoryError, RecursionError) as error:
        if arguments_.DEBUG in words:
            print_text(traceback.format_exc(), end="", stderr=True)
        return _end(_sentence(error), _status(error))


def _replace_what_cannot_be_encoded() -> None:
    """Make a character that the output's encoding lacks a question mark; an error there would be the end of a day's work."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError):
        return file_and_reason(error)
    if isinstance(error, RecursionError):
        return "a value or a file of this command is nested too deeply; --debug shows where"
    return reason(error)


def _status(error: BaseException) -> int:
    if isinstance(error, OSError):
        return 2 if error.errno in _OF_THE_USER else 1
    return 2 if isinstance(error, UserError) else 1


def _end(sentence: str, status: int) -> int:
    with lenient():
        warn(sentence)
    return status


if __name__ == "__main__":
    sys.exit(main())
