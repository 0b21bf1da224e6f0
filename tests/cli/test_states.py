import os

import pytest
from rich.console import Console

from kdbench.cli import states
from kdbench.launch.status import RunStatus


def run(seed, state="planned", **facts):
    return RunStatus(f"ce-digits-resnet8-s{seed}-{seed:010}", state, method="ce", seed=seed, **facts)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_gets_a_table_that_fits(width):
    error = "the loss is not finite at step 51 (terms kl, ranking); a smaller SGD.lr may help"
    runs = [*map(run, range(26)), run(26, "done", accuracy=71.2, seconds=75.0), run(27, "failed", error=error)]
    console = Console(width=width, force_terminal=True, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(states.view(runs, [each.id for each in runs], every=False))
    lines = console.export_text().splitlines()
    assert lines[0] == "28 runs: 26 planned, 1 failed, 1 done"
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "ce-digits-resnet8-s27  failed" in text
    assert "not shown: 6 planned (kdbench status state=planned)" in text
    assert "More about a run: kdbench logs ce-digits-resnet8-s27" in text
    assert "s26" not in text


@pytest.mark.parametrize("height", [10, 24, 60])
def test_watch_draws_no_more_than_the_terminal_has_lines(height):
    runs = [run(seed, "failed", error="no " * 50) if seed % 3 else run(seed) for seed in range(60)]
    console = Console(width=80, height=height, force_terminal=True)
    for every in (True, False):
        shown = states.fitting(console, runs, [each.id for each in runs], every)
        assert len(console.render_lines(shown)) < height
