"""The kernel's counters of processes that it killed for want of memory."""

from kdbench.launch import out_of_memory
from kdbench.launch.out_of_memory import OomKills


def test_what_was_killed_since_counts(tmp_path):
    events, control = tmp_path / "memory.events", tmp_path / "memory.oom_control"
    events.write_text("low 0\noom 9\noom_kill 3\noom_group_kill 0\n")
    control.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    kills = OomKills([events, control, tmp_path / "missing"])
    assert not kills.happened()
    control.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    assert kills.happened()


def test_the_counters_are_those_of_this_process():
    assert all(
        path.name in ("memory.events", "memory.oom_control") for path in out_of_memory._counters_of_this_process()
    )
    assert not OomKills().happened()
