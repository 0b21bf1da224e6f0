import io
from dataclasses import replace

from rich.console import Console

from kdbench.launch import display
from kdbench.plan import expand, request
from kdbench.run.caller import Progress

SPECS = expand.plan(request.parse(["methods=ce", "dataset=digits", "seeds=0,1"]))
RESULT = {"status": "finished", "accuracy.last": 71.234, "seconds.train": 3723.0, "cost.images_per_second": 812.3}
HALF = Progress(images=500, budget=1000, epoch=5, epochs=10, images_per_second=100.0, validation=61.5)


def live_text(progress, result=None):
    """Text of the live display of a run with this progress, which then ends with `result`."""
    out = io.StringIO()
    live = display.Live(SPECS)
    live._console = live._bars.live.console = Console(file=out, force_terminal=True, width=120)
    with live:
        live.begin(SPECS[0])
        live.progress(SPECS[0], progress)
        live._bars.refresh()
        if result:
            live.end(SPECS[0], result)
    return out.getvalue()


def test_plain_lines_where_nobody_watches(capsys, monkeypatch):
    with display.for_terminal(SPECS) as shown:
        assert isinstance(shown, display.Plain)
        for spec in SPECS:
            shown.begin(spec)
            shown.progress(spec, HALF)
            monkeypatch.setattr(display, "PLAIN_EVERY", 0.0)
            shown.progress(spec, HALF)
            shown.end(spec, RESULT)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        f"[1/2] {SPECS[0].id}", "[1/2]   epoch 5/10, 100 images/s, 0:05 left", "[1/2]   71.23 % in 1:02:03, 812 images/s",
    ]  # fmt: skip
    assert not any("\x1b" in line for line in lines)


def test_a_run_that_is_measured_does_not_look_hung(capsys, monkeypatch):
    monkeypatch.setattr(display, "PLAIN_EVERY", 0.0)
    measured = replace(HALF, images=1000, measured=0.416)
    plain = display.Plain(1)
    plain.begin(SPECS[0])
    plain.progress(SPECS[0], measured)
    assert capsys.readouterr().err.splitlines()[-1] == "[1/1]   trained; measuring, 42% done"
    assert "measuring, 42% done" in live_text(measured)


def test_a_failed_run_names_the_log_that_has_its_traceback(tmp_path, capsys):
    log = tmp_path / SPECS[0].id / "log.txt"
    log.parent.mkdir()
    failed = {"status": "failed", "error": "a sentence", "run": SPECS[0].id}
    plain = display.Plain(1, tmp_path)
    plain.begin(SPECS[0])
    plain.end(SPECS[0], failed)
    log.write_text("Traceback")
    plain.end(SPECS[0], failed)
    assert capsys.readouterr().err.splitlines()[1:] == [
        "[1/1]   failed: a sentence",
        f"[1/1]   failed: a sentence; traceback: {log}",
    ]


def test_live_bars_show_runs_done_epoch_speed_and_time_left():
    text = live_text(HALF, {"status": "failed", "error": "the loss is [not] finite"})
    assert "epoch 5/10 · 100 images/s · 0:05 left · val 61.5 %" in text
    assert "0/2" in text
    assert "failed: the loss is [not] finite" in text


def test_a_notebook_has_one_text_that_is_updated():
    """tests/test_quickstart.py has it in a kernel."""
    texts = []

    class Handle:
        def update(self, data, raw):
            texts.append(data["text/plain"].splitlines())

    shown = display.Notebook(SPECS)
    shown._handle = Handle()
    shown.begin(SPECS[0])
    shown.progress(SPECS[0], HALF)
    assert len(texts) == 1, "progress alone is shown some times a second only"
    shown.waits(SPECS[1], "waiting for\nanother")
    assert texts[-1][0] == "– ce digits resnet8 s1  waiting for another"
    assert texts[-1][1].startswith("runs                " + " ━━━━━━──────────────────")
    assert texts[-1][2].endswith("epoch 5/10 · 100 images/s · 0:05 left · val 61.5 %")
    shown.end(SPECS[0], RESULT)
    shown.end(SPECS[1], {"status": "failed", "error": "a sentence"})
    shown.__exit__(None, None, None)
    assert texts[-1][1:] == [
        "✓ ce digits resnet8 s0  71.23 % in 1:02:03, 812 images/s",
        "✗ ce digits resnet8 s1  failed: a sentence",
        "runs ━━━━━━━━━━━━━━━━━━━━━━━━ 2/2",
    ]
