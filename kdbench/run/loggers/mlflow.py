"""The lines of epochs.csv for MLflow (`log=mlflow`): on the server of MLFLOW_TRACKING_URI, else in the files of `RUNS/.mlflow`.

The experiment is MLFLOW_EXPERIMENT_NAME, or "kdbench".
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence

from kdbench.config import run_config
from kdbench.files import lock
from kdbench.run.loggers import Line, logged_id, metrics
from kdbench.store.folder import CONFIG, RunFolder

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before the import, which starts it

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

MOST_PARAMS = 100
"""Parameters of one request at most, and characters of a parameter's value, as MLflow has it."""
LONGEST_VALUE = 500


class Log:
    """One run of MLflow, which a process that resumes the run continues with the epochs that it does not have yet."""

    def __init__(self, folder: RunFolder, lines: Sequence[Line]):
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            uri = (folder.path.parent / ".mlflow").resolve().as_uri()
            # Needs no server and no database; MLflow 3 maintains it no longer, and wants this confirmation.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = MlflowClient(tracking_uri=uri)
        self._began = time.time() - float(lines[-1]["seconds"] if lines else 0)
        self._id, new = logged_id(folder, "mlflow", lambda: self._create(folder))
        if new:
            self._put_params(folder)
        else:
            self._client.update_run(self._id, status="RUNNING")
        logged = {metric.step for metric in self._client.get_metric_history(self._id, "seconds")}
        self._put([line for line in lines if int(line["epoch"]) not in logged])

    def add(self, line: Line) -> None:
        self._put([line])

    def close(self) -> None:
        self._client.set_terminated(self._id)

    def withdraw(self) -> None:
        pass  # the other process continues the same logged run

    def _create(self, folder: RunFolder) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "kdbench"
        with lock(folder.path.parent / ".mlflow.lock"):  # else two processes make two experiments of this name
            experiment = self._client.get_experiment_by_name(name)
            id_ = experiment.experiment_id if experiment else self._client.create_experiment(name)
        return str(self._client.create_run(id_, run_name=folder.path.name).info.run_id)

    def _put_params(self, folder: RunFolder) -> None:
        values = run_config.read(folder / CONFIG).values
        params = [Param(key, str(value)[:LONGEST_VALUE]) for key, value in values.items()]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._id, params=params[first : first + MOST_PARAMS])

    def _put(self, lines: Iterable[Line]) -> None:
        for line in lines:
            at = round(1000 * (self._began + float(line["seconds"])))
            values = [Metric(name, value, at, int(line["epoch"])) for name, value in metrics(line).items()]
            self._client.log_batch(self._id, metrics=values)
