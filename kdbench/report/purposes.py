"""The purpose of each run: to be compared, or only to teach others. Records of older versions do not hold it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from kdbench.plan.spec import COMPARISON, EQUAL_TEACHER_SEED, TEACHER

if TYPE_CHECKING:
    import pandas as pd

PURPOSE = "purpose"
_LINE = ("protocol", "dataset", "student", "method", "method.parameters", "teacher")
_NEEDED = (*_LINE, "seed", "run", PURPOSE)


def filled(records: pd.DataFrame) -> pd.DataFrame:
    """Give each record a purpose. They must be all records there are, because others show which of them teach.

    A run that another one names as its teacher was made to teach, unless its own line of the table has further seeds: then
    somebody asked for the line, and found this seed trained already. The seed that only teachers of their own architecture
    have is never one of these.

    Args:
        records: in canonical form (kdbench.report.records).
    """
    teaching = {run for runs in records.get("teacher.run", ()) if runs for run in runs.split(",")}
    rows = list(zip(*(records[name] for name in _NEEDED), strict=True))
    seeds: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for *line, seed, _, _ in rows:
        seeds[tuple(line)].add(seed)
    own = str(EQUAL_TEACHER_SEED)

    def purpose(line: tuple[str, ...], seed: str, run: str, stored: str) -> str:
        if stored == COMPARISON:
            return COMPARISON
        if seed == own and (stored or not line[-1]):
            return TEACHER
        made_to_teach = stored == TEACHER or run in teaching
        return TEACHER if made_to_teach and seeds[line] <= {seed, own} else COMPARISON

    return records.assign(**{PURPOSE: [purpose(row[: len(_LINE)], *row[len(_LINE) :]) for row in rows]})
