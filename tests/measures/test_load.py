"""CPU time of other processes: from a stat file of the test's own, because the real one has the load of the machine."""

import os
import time

import pytest

from kdbench.measures.load import OtherProcesses, mean_cores

TICKS = os.sysconf("SC_CLK_TCK")


def stat(path, **seconds):
    fields = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
    ticks = [10**9 + round(seconds.get(field, 0) * TICKS) for field in fields]
    path.write_text(f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3\n")
    return path


def test_busy_time_counts_and_idle_time_does_not(tmp_path):
    others = OtherProcesses(stat(tmp_path / "stat"))
    stat(tmp_path / "stat", user=100, nice=20, system=3, steal=4, idle=5000, iowait=5000, guest=100)
    assert others.seconds() == pytest.approx(127, abs=1), "less what this process used meanwhile"


def test_own_time_is_not_that_of_others(tmp_path):
    others = OtherProcesses(stat(tmp_path / "stat"))
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    stat(tmp_path / "stat", user=1)
    assert others.seconds() < 0.85


def test_the_real_file_is_understood():
    assert OtherProcesses().seconds() >= 0


@pytest.mark.parametrize("content", [None, "", "cpu", "cpu a b c d e f g h"])
def test_a_system_that_does_not_report_it_has_none(tmp_path, content):
    path = tmp_path / "stat"
    if content is not None:
        path.write_text(content)
    assert OtherProcesses(path).seconds() is None


def test_the_mean_is_over_the_time_of_all_sessions():
    assert mean_cores([{"others": 30.0, "watched": 10.0}, {"others": 0.0, "watched": 30.0}]) == 0.75
    assert mean_cores([{"others": 30.0, "watched": 10.0}, {"watched": 30.0}]) is None, "a session of an older kdbench"
    assert mean_cores([{"others": None, "watched": 10.0}]) is None
