"""Curves, options and metrics of a run on MLflow."""

from __future__ import annotations

import logging
import time
from typing import Any

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import RunConfig
from recbole_bbqrec.run_files.epochs import Line

logger = logging.getLogger(__name__)

#: Options that MLflow gets as parameters, where the run has them.
_PARAMETERS = (
    "model",
    "dataset",
    "seed",
    "protocol",
    "epochs",
    "learning_rate",
    "train_batch_size",
)


class MlflowLog:
    """A run on MLflow, of one process; the first of several has it.

    An epoch is a point of the curves ``<phase>/<term>``, such as ``tokenize/total`` and
    ``generate/ndcg_10``: MLflow takes no ``@`` in a name. A resumed run is a new one there, with
    the curves of its earlier epochs. A service that fails later ends the curves, not the training.

    Args:
        config: the run's; `log_mlflow` names the experiment, and MLflow's own environment
            variables, such as MLFLOW_TRACKING_URI, the service.
        text: all options, as the run's YAML file has them.

    Raises:
        UserError: the service cannot be reached, or the experiment was deleted.
    """

    def __init__(self, config: RunConfig, text: str) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self._failure: type[Exception] = MlflowException
        self._sent = 0  # epoch lines
        self._client: Any = None
        experiment = config["log_mlflow"]
        try:
            client = MlflowClient()
            known = client.get_experiment_by_name(experiment)
            number = known.experiment_id if known else client.create_experiment(experiment)
            name = f"{config['model']}-{config['dataset']}-{config['seed']}"
            self._run = client.create_run(number, run_name=name).info.run_id
            for key in _PARAMETERS:
                if config[key] is not None:
                    client.log_param(self._run, key, config[key])
            client.log_text(self._run, text, "config.yaml")
        except (MlflowException, OSError) as error:
            raise UserError(
                f"Option `log_mlflow` is {experiment}, but MLflow does not answer: {error}. Check "
                "MLFLOW_TRACKING_URI, or leave the option out."
            ) from error
        self._client = client
        logger.info(f"MLflow: experiment {experiment}, run {self._run}")

    def add_epochs(self, lines: list[Line]) -> None:
        """Send the epochs that were not sent yet; ``lines`` are all of the run."""
        new = lines[self._sent :]
        self._sent = len(lines)
        for line in new:
            values = {**line["terms"], **line.get("valid", {})}
            values.update({f"{name}_seconds": value for name, value in line["seconds"].items()})
            if line.get("learning_rate") is not None:
                values["learning_rate"] = line["learning_rate"]
            self._send(
                {f"{line['phase']}/{name}": value for name, value in values.items()}, line["epoch"]
            )

    def add_test(self, metrics: dict[str, float]) -> None:
        """Send the metrics of the test."""
        self._send({f"test/{name}": value for name, value in metrics.items()}, 0)

    def __enter__(self) -> MlflowLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """End the run there, as finished, failed or, after an interrupt, killed."""
        status = "FINISHED" if kind is None else "FAILED"
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            status = "KILLED"
        self._attempt("set_terminated", status=status)

    def _send(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())  # milliseconds
        points = [
            Metric(name.replace("@", "_"), float(value), now, step)
            for name, value in values.items()
        ]
        self._attempt("log_batch", metrics=points)

    def _attempt(self, request: str, **arguments: Any) -> None:
        """Make a request of the client; the first that fails is a warning and the last one."""
        if self._client is None:
            return
        try:
            getattr(self._client, request)(self._run, **arguments)
        except (self._failure, OSError) as error:
            logger.warning(f"MLflow: nothing more is logged there: {error}")
            self._client = None
