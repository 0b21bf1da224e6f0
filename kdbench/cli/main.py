"""The entry point of the command line: runs a command, and turns errors into sentences and exit statuses."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from kdbench.cli import arguments as arguments_
from kdbench.cli import commands
from kdbench.errors import RunError, UserError
from kdbench.output import lenient


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 success, 1 a run failed or was lost, 2 invalid input, 3 other processes still do some of the runs, 130 interrupted.
    """
    try:
        arguments = arguments_.parse(sys.argv[1:] if words is None else words)
        from kdbench.config import places  # not for --help and typos, which are to be fast

        places.add_plugins(arguments.plugins)
        command = commands.load(arguments.command)
        with lenient() if arguments.command in commands.WORK else nullcontext():
            return command.run(arguments)
    except UserError as error:
        return _end(str(error), 2)
    except RunError as error:
        return _end(str(error), 1)
    except KeyboardInterrupt:
        return _end("interrupted; finished runs are kept, and the same command resumes the rest", 130)
    except BrokenPipeError:  # the reader of a pipe (head, less) has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _end(sentence: str, status: int) -> int:
    with lenient():
        print(f"kdbench: {sentence}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
