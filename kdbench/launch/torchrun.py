"""torchrun that ends with the pool that started it: `python -m kdbench.launch.torchrun POOL WORDS…`.

POOL is the pool's process id, WORDS are torchrun's own.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from kdbench.errors import RunError, loading_torch
from kdbench.launch.messages import Messages
from kdbench.launch.orphan import is_orphan

LOOK = 1.0
"""Seconds between two checks of whether the pool lives."""


def main() -> None:
    """Entry point of the program."""
    pool, *words = sys.argv[1:]
    threading.Thread(target=_watch, args=(int(pool),), name="orphan", daemon=True).start()
    try:
        with loading_torch():
            from torch.distributed import run
    except RunError as error:
        Messages(sys.stdout).send(event="over", why=str(error))
        sys.exit(1)
    run.main(words)


def _watch(pool: int) -> None:
    while not is_orphan(pool):
        time.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGTERM)  # torchrun passes it on to the processes that it has started


if __name__ == "__main__":
    main()
