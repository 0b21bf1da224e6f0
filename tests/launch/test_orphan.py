"""A process that was cut off from the one that started it notices, also if another one is between them."""

import os
import subprocess
import sys

LOOK = """
import os, sys, time
from kdbench.launch.orphan import is_orphan
pool, parent = int(sys.argv[1]), os.getppid()
print(is_orphan(pool), flush=True)
while os.getppid() == parent:
    time.sleep(0.02)
print(is_orphan(pool), flush=True)
"""
BETWEEN = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LOOK!r}, *sys.argv[1:]])"


def test_one_between_that_ends_cuts_it_off():
    words = [sys.executable, "-c", BETWEEN, str(os.getpid())]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as between:
        assert between.stdout.readline() == "False\n"
        between.kill()
        assert between.stdout.readline() == "True\n"


def test_so_does_the_end_of_the_one_that_started_it():
    first = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {LOOK!r}, str(os.getpid())])"
    with subprocess.Popen([sys.executable, "-c", first], stdout=subprocess.PIPE, text=True) as pool:
        assert pool.stdout.readline() == "False\n"
        pool.kill()
        assert pool.stdout.readline() == "True\n"
