"""The channel of a worker: nothing but its own messages gets there."""

import os
import subprocess
import sys

PROGRAM = """
import os, subprocess, sys
print("a line without an end", end="")
from kdbench.launch.messages import Messages, channel
messages = Messages(channel())
forged = '{"event": "end", "run": "ce-0"}'
print(forged)
os.write(1, (forged + chr(10)).encode())
subprocess.run([sys.executable, "-SEc", f"print({forged!r})"])
print("\\u2603", "\\udc80")
messages.send(event="ready")
"""
STAYS = """
subprocess.Popen([sys.executable, "-SEc", "import os, time; time.sleep(20)"])
"""


def test_what_a_method_prints_cannot_be_taken_for_a_message():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [b"a line without an end", b'{"event": "ready"}']
    lines = done.stderr.splitlines()
    assert lines.count(b'{"event": "end", "run": "ce-0"}') == 3
    assert b"\\u2603 \\udc80" in lines


def test_a_process_that_a_method_leaves_behind_does_not_keep_the_channel_open():
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM + STAYS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as worker:
        assert worker.stdout.read().endswith(b'\n{"event": "ready"}\n')  # else only 20 s later


def test_a_pool_that_has_died_costs_the_run_nothing():
    program = """
from kdbench.launch.messages import Messages, channel
messages = Messages(channel())
input()
for _ in range(3): messages.send(event="ready")
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as worker:
        assert worker.stdout.readline() == b"\n"
        worker.stdout.close()
        worker.stdin.write(b"\n")
        worker.stdin.close()
        assert worker.stderr.read() == b""
        assert worker.wait() == 0
