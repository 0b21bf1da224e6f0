"""Memory that is freed is there for the next step."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from kdbench.run.allocator import keep_freed_memory

keep_freed_memory()
np.ones(2**24, dtype=np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**24, dtype=np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize(("variables", "is_kept"), [({}, True), ({"MALLOC_ARENA_MAX": "8"}, False)])
def test_pages_are_used_again(variables, is_kept):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**environment, **variables}, check=True, capture_output=True, text=True
    )
    assert (int(done.stdout) < 100) == is_kept  # of 20 times 4,096 pages, fewer where pages are large


RELEASED = """
import numpy as np
from kdbench.run.allocator import keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

keep_freed_memory()
before = resident()
np.ones(2**26, dtype=np.uint8)
kept = resident()
keep_freed_memory()
print(kept - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_run_does_not_count_what_the_one_before_it_has_freed():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", RELEASED], env=environment, check=True, capture_output=True, text=True)
    kept, released = map(int, done.stdout.split())
    assert kept > 2**25 > released
