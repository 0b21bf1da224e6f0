"""The program that writes docs/performance.md runs."""

import re
import subprocess
import sys
from pathlib import Path


def test_it_measures_all_loops():
    command = [sys.executable, str(Path(__file__).with_name("performance.py")), "--quick", "--rounds", "1"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert re.search(r"^\| kd \| \d+ \| \d+\.\d\d \| .*met.* \| \d+\.\d\d \| .*met.* \|$", text, flags=re.MULTILINE)
    assert "`kdbench --help`" in text
