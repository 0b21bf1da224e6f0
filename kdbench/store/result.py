"""Every key of `result.json`, declared once: a new key is a new line here, or in the MEASURES table of its measure.

The keys come from all over the project. Their declarations check them (`defects`), type them for readers (`is_number`,
`dtype`) and document them: `python -m kdbench.store.result > docs/results.md`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from kdbench.config import extensions, places, result_keys
from kdbench.errors import UserError, shortened
from kdbench.store import results_page


class Key(NamedTuple):
    """One key, or a family of keys.

    Attributes:
        name: the key; the name of a family ends in `.*`, which stands for any ending.
        type: str, int, float or bool, as JSON stores it; float takes integers too.
        unit: unit of a number; "" for text and for plain counts.
        meaning: half a sentence.
        null: the value may be null.
        leading: the leaderboard's rows always have this column; any other key is a column where at least one run has a
            value.
    """

    name: str
    type: type
    unit: str
    meaning: str
    null: bool = False
    leading: bool = False

    @property
    def type_in_words(self) -> str:
        """The type of its values: "integer or null"."""
        return _WORDS[self.type] + (" or null" if self.null else "")


# fmt: off
SECTIONS: dict[str, tuple[Key, ...]] = {
    "The run": (
        Key("dataset", str, "", "name of the dataset", leading=True),
        Key("student", str, "", "name of the student's backbone", leading=True),
        Key("recipe", str, "", "name of the recipe", leading=True),
        Key("overrides", str, "", "shared values that the command line changed, as a JSON object", leading=True),
        Key("protocol", str, "", "hash of all values that the methods of a table share", leading=True),
        Key("method", str, "", "name of the method or variant", leading=True),
        Key("method.parameters", str, "", "the method's own values that the command line changed, as a JSON object", leading=True),
        Key("teacher", str, "", "names of the teachers' backbones, or of the weight file; null without a teacher",
            null=True, leading=True),
        Key("seed", int, "", "seed of everything random in the run", leading=True),
        Key("run", str, "", "id of the run and name of its folder", leading=True),
        Key("purpose", str, "", "`comparison`, or `teacher` for a run that was only made to teach others", leading=True),
        Key("status", str, "", "`finished` or `failed`", leading=True),
        Key("error", str, "", "the reason, for a failed run only", null=True, leading=True),
        Key("control", str, "", "values that make the method a control, as a JSON object"),
    ),
    "Accuracy": (
        Key("accuracy.last", float, "percent", "top-1 accuracy on the test set after the last epoch: the result", leading=True),
        Key("accuracy.best_val", float, "percent", "test accuracy with the weights of `best_epoch`; null without validation split",
            null=True, leading=True),
        Key("accuracy.val", float, "percent", "validation accuracy after the last epoch; null without validation split",
            null=True, leading=True),
        Key("accuracy.second_task", float, "percent", "accuracy on the second task, with `SecondTask.weight` only"),
        Key("images_seen", int, "images", "images that passed through the student in training", leading=True),
        Key("passes.student", int, "images", "the same, counted by the network itself; fewer where a phase trains something else"),
        Key("passes.per_anchor", int, "images", "images through the student for each image that a step draws as an anchor"),
        Key("passes.peers", int, "images", "images that passed through peers in training"),
        Key("passes.teachers", int, "images", "images that passed through teachers in training"),
        Key("passes.teachers_read", int, "images", "images that did not, because an earlier run had kept a teacher's outputs"),
        Key("accuracy.best_test", float, "percent", "highest test accuracy of any epoch, with `Selection.on_test` only", null=True),
        Key("selected_on_test", bool, "", "true with `Selection.on_test`; otherwise the key is absent"),
        Key("best_epoch", int, "", "epoch with the highest validation accuracy, from 1; null without validation split", null=True),
        Key("exits.*", float, "percent", "test accuracy of one exit; `exits.ensemble` averages the softmax of all"),
    ),
    "Teacher": (
        Key("teacher.accuracy", float, "percent", "top-1 accuracy of the first teacher on the test set", null=True),
        Key("teacher.run", str, "", "ids of the teachers' own runs, separated by commas; null for any other teacher", null=True),
        Key("teacher.doubt", str, "", "why the teacher is in doubt: near chance on training images, or classes in another order"),
        Key("teacher.sha256", str, "", "checksums of the teachers' weights, separated by commas", null=True),
    ),
    "Measures": (
        Key("measures.version", int, "", "version of the way of measuring; compare measures of equal versions only"),
    ),
    "Transfer": (
        Key("transfer.*", float, "percent", "accuracy on another dataset with frozen features: `transfer.DATASET.linear` and "
            "`transfer.DATASET.knn`; from `transfer.json`, which `kdbench transfer` writes"),
    ),
    "Cost": (
        Key("seconds.train", float, "seconds", "time spent on training alone"),
        Key("seconds.evaluate", float, "seconds", "time of the final evaluation; less where the teacher's outputs were kept"),
        Key("seconds.total", float, "seconds", "time of all processes that did the run, from start to end"),
        Key("cost.images_per_second", float, "images/s", "training speed"),
        Key("cost.parameters", int, "parameters", "parameters of the deployed network"),
        Key("cost.parameters_training", int, "parameters", "parameters of everything that is held in training"),
        Key("cost.flops", int, "FLOPs", "one image through the deployed network; a multiplication and an addition count as two"),
        Key("cost.flops.*", int, "FLOPs", "one image up to one exit; `cost.flops.ensemble` for all exits together"),
        Key("cost.flops_training", int, "FLOPs", "losses of a training step, forward only, for each of its images"),
        Key("cost.peak_memory_bytes", int, "bytes", "peak memory in training: allocated on a GPU, resident on a CPU"),
        Key("cost.peak_resident_bytes", int, "bytes", "peak resident memory of the process in training", null=True),
        Key("cost.energy_joules", float, "joules", "energy used by the run's GPUs in training; null if not measurable", null=True),
    ),
    "Tuning": (
        Key("tuning.trials", int, "trials", "trials of `kdbench tune` that it took to choose these values; 0 for untuned ones"),
        Key("tuning.study", str, "", "the study they are from", null=True),
    ),
    "Checksums": (
        Key("weights.sha256", str, "", "checksum of the deployed network's weights"),
        Key("data.sha256", str, "", "checksum of all images and labels; of image files, of their names, sizes and labels"),
        Key("data.content_sha256", str, "", "checksum of the bytes of all image files, where `kdbench data check` has computed it"),
        Key("data.skipped", int, "images", "images left out because they cannot be read, with `Dataset.skip_broken` only"),
    ),
    "Provenance": (
        Key("provenance.command", str, "", "command that repeats the run"),
        Key("provenance.commit", str, "", "commit of the clone that kdbench ran from; null for an installed wheel", null=True),
        Key("provenance.clean", bool, "", "whether kdbench/, methods/ and gin/ had no uncommitted changes", null=True),
        Key("provenance.commits", str, "", "commits of all processes that did an interrupted run, separated by spaces"),
        Key("provenance.commit_submitted", str, "", "commit at the time when a SLURM job was submitted", null=True),
        Key("provenance.method_sha256", str, "", "checksum of the method's file"),
        Key("provenance.own_files", str, "", "the user's own files that made the run, kept in its folder's `plugin/`"),
        Key("provenance.kdbench", str, "", "version of kdbench"),
        Key("provenance.python", str, "", "version of Python"),
        Key("provenance.torch", str, "", "version of PyTorch"),
        Key("provenance.torchvision", str, "", "version of torchvision", null=True),
        Key("provenance.gin", str, "", "version of gin-config", null=True),
        Key("provenance.device", str, "", "name of the GPU or CPU model"),
        Key("provenance.cpu", str, "", "name of the CPU model"),
        Key("provenance.gpus", int, "processes", "processes that share each batch"),
        Key("provenance.runs_per_gpu", int, "runs", "most runs that shared the GPU at a time; on GPUs only"),
        Key("provenance.threads", int, "threads", "CPU threads that PyTorch used"),
        Key("provenance.compile", bool, "", "whether torch.compile was used"),
        Key("provenance.compile_mode", str, "", "mode of torch.compile, where it was not the default one"),
        Key("provenance.deterministic", bool, "", "whether deterministic kernels alone were allowed"),
        Key("provenance.arithmetic", str, "", "PyTorch's settings that change results, where they are not `default`"),
        Key("provenance.variables", str, "", "environment variables that change results, or `none`"),
        Key("provenance.cores", int, "cores", "CPU cores of the machine"),
        Key("provenance.instructions", str, "", "vector instructions of the CPU, and whether it has some for bfloat16"),
        Key("provenance.load", float, "cores", "CPU cores that other processes kept busy, mean until training ended", null=True),
        Key("provenance.platform", str, "", "operating system"),
        Key("provenance.job", str, "", "SLURM job, in jobs only"),
        Key("provenance.host", str, "", "name of the machine, in jobs only"),
        Key("provenance.sessions", int, "processes", "processes that did the run one after the other, if it was interrupted"),
        Key("provenance.mixed", str, "", "facts above in which these processes differ, separated by spaces"),
        Key("provenance.started_at", str, "", "start of the first process, UTC"),
        Key("provenance.finished_at", str, "", "end of the run, UTC"),
    ),
    "Rows of others": (
        Key("origin", str, "", "file that the row was merged from, and the beginning of its checksum; in `results.csv` only, "
            "as all of this section; empty for the runs of this machine"),
        Key("reproduced.status", str, "", "`confirmed` or `contradicted` by `kdbench reproduce` on this machine"),
        Key("reproduced.identical", bool, "", "whether the weights were bit-identical"),
        Key("reproduced.difference", float, "", "accuracy here minus the merged one, in percentage points", null=True),
        Key("reproduced.device", str, "", "name of the GPU or CPU model here", null=True),
        Key("reproduced.at", str, "", "end of the repetition, UTC"),
    ),
}
# fmt: on

KEYS = tuple(key for keys in SECTIONS.values() for key in keys)

LEADING = tuple(key.name for key in KEYS if key.leading)
"""The columns that `results.csv` always has, in order."""

_DTYPES = {str: "string", int: "Int64", float: "float64", bool: "boolean"}
_WORDS = {str: "text", int: "integer", float: "number", bool: "true or false"}


def declared_keys() -> Mapping[str, Key]:
    """All declared keys by name, those of measures included.

    Raises:
        UserError: a measure's declaration is wrong.
    """
    return _declared_keys(tuple(places.roots()))


@cache
def _declared_keys(roots: tuple[Path, ...]) -> Mapping[str, Key]:
    of_measures = {name: _of_measure(name, key) for name, key in result_keys.declared().items()}
    own = {key.name: key for key in KEYS}
    if twice := own.keys() & of_measures:
        raise UserError(f"the key '{min(twice)}' is declared twice: in {__file__} and by a measure")
    return own | of_measures


def _of_measure(name: str, key: result_keys.Key) -> Key:
    return Key(name, {"float": float, "int": int}[key.type], key.unit, key.meaning, null=True)


def declaration(name: str) -> Key | None:
    """The declaration of a key: its own, or that of the family with the longest matching name; None if there is none."""
    return _find(name, declared_keys())


def _find(name: str, keys: Mapping[str, Key]) -> Key | None:
    parts = name.split(".")
    families = (".".join([*parts[:length], "*"]) for length in range(len(parts) - 1, 0, -1))
    return next((keys[candidate] for candidate in (name, *families) if candidate in keys), None)


def is_number(name: str) -> bool:
    """True if a key is declared and its values are numbers or null."""
    key = declaration(name)
    return key is not None and key.type in (int, float)


def dtype(name: str) -> str:
    """The pandas dtype of a key's column; all of them can hold missing values, and undeclared keys are strings."""
    key = declaration(name)
    return _DTYPES[key.type if key else str]


def defects(result: Mapping[str, Any]) -> list[str]:
    """A sentence for each undeclared key of a result and each value that its declaration does not allow.

    A result need not have every key: a failed run has few.
    """
    sentences = []
    for name, value in result.items():
        key = declaration(name)
        if key is None:
            sentences.append(f"the result has the key '{name}', which is not declared in kdbench/store/result.py")
        elif not (key.null if value is None else _fits(value, key.type)):
            sentences.append(f"the result's '{name}' is {value!r}, but it is declared as {key.type_in_words}")
    return sentences


LARGEST = 2.0**63
"""Numbers from here on cannot have been measured; squares and sums of smaller ones stay finite."""


def typed(result: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a result.json that have the type that kdbench declares, for readers of a file of any origin."""
    wrong = dict(ill_typed(result))
    return {name: value for name, value in result.items() if name not in wrong}


def ill_typed(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The entries of a result.json that cannot be what a run measured, each with a sentence.

    Null stands for a missing value everywhere. Keys that kdbench itself does not declare, such as those of measures, are not
    checked: which exist depends on the plug-ins.
    """
    for name, value in result.items():
        key = _own_key(name)
        if key is None or value is None:
            continue
        if not _fits(value, key.type):
            yield name, f"its '{name}' is {shortened(repr(value), 60)}, but it is declared as {_WORDS[key.type]}"
        elif key.type in (int, float) and not is_plausible(name, value):
            yield name, f"its '{name}' is {shortened(repr(value), 60)}, which cannot have been measured"


@lru_cache(maxsize=4096)  # thousands of results have the same keys
def _own_key(name: str) -> Key | None:
    return _find(name, {key.name: key for key in KEYS})


def is_plausible(name: str, value: float) -> bool:
    """True if a run can have measured this: accuracies are at most 100 percent, and nothing that has a unit is negative."""
    key = _own_key(name)
    least = 0 if key and key.unit else -LARGEST
    return least <= value <= (100 if key and key.unit == "percent" else LARGEST)


def _fits(value: Any, kind: type) -> bool:
    if kind is float:
        finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        return finite and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def document() -> str:
    """The text of docs/results.md."""
    measures = {
        f"The measure {name}": tuple(_of_measure(key, facts) for key, facts in keys.items())
        for name, keys in result_keys.by_measure().items()
        if extensions.member("measure", name).origin == places.BUILT_IN
    }
    return results_page.page(SECTIONS | measures, LEADING)


if __name__ == "__main__":
    sys.stdout.write(document())
