"""The lines of epochs.csv for Weights & Biases (`log=wandb`), online or with WANDB_MODE=offline.

The project is WANDB_PROJECT, or "kdbench"; files are in WANDB_DIR, or in `RUNS/.wandb`.
"""

from __future__ import annotations

import netrc
import os
import shutil
from collections.abc import Sequence
from urllib.parse import urlparse

import wandb

from kdbench.config import run_config
from kdbench.run.loggers import Line, logged_id, metrics
from kdbench.store.folder import CONFIG, RunFolder


class Log:
    """One run of W&B. Online it continues on the server; offline its files are written again from the lines that count."""

    def __init__(self, folder: RunFolder, lines: Sequence[Line]):
        id_, _ = logged_id(folder, "wandb")
        offline = os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled")
        if not offline and not _is_logged_in():  # else it would wait at the terminal for an answer
            raise RuntimeError("there is no API key; log in with wandb login, or set WANDB_MODE=offline")
        root = os.environ.get("WANDB_DIR") or str(folder.path.parent / ".wandb")
        os.makedirs(root, exist_ok=True)
        if offline:
            for before in (folder.path.parent / ".wandb" / "wandb").glob(f"offline-run-*-{id_}"):
                shutil.rmtree(before, ignore_errors=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "kdbench",
            id=id_,
            name=folder.path.name,
            dir=root,
            resume="allow",
            reinit="create_new",  # a worker process does several runs, one after the other
            config={key: str(value) for key, value in run_config.read(folder / CONFIG).values.items()},
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, disable_git=True, disable_code=True, init_timeout=30
            ),
        )
        begin = 0 if offline else self._run.step
        for line in lines:
            if int(line["epoch"]) >= begin:
                self.add(line)

    def add(self, line: Line) -> None:
        self._run.log(metrics(line, "/"), step=int(line["epoch"]))

    def close(self) -> None:
        self._run.finish()

    def withdraw(self) -> None:
        pass  # the other process continues the same logged run


def _is_logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
