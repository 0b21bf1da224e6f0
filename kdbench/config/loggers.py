"""The loggers that `Machine.log` can name, each the name of a package, of kdbench's extra and of a file in kdbench/run/loggers."""

from __future__ import annotations

LOGGERS = ("tensorboard", "wandb", "mlflow")


def named(log: str) -> list[str]:
    """The loggers that a value of `Machine.log` lists, such as "tensorboard,wandb"; none for ""."""
    return list(dict.fromkeys(name for part in log.split(",") if (name := part.strip())))


def misfit(log: str) -> str:
    """The reason why a value of `Machine.log` cannot be, as a sentence; "" if it can."""
    unknown = [name for name in named(log) if name not in LOGGERS]
    return f"Machine.log takes names out of {', '.join(LOGGERS)}, not '{unknown[0]}'" if unknown else ""
