"""`python -m kdbench` finds the modules that the command kdbench finds, and hands that on to the processes it starts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import kdbench

SHOW = """
def main():
    import json, os, sys, tensorboard
    print(json.dumps([sys.path, os.environ.get("PYTHONPATH")]))
"""


def asked(cwd, path, *options):
    """sys.path and PYTHONPATH of a package that begins as kdbench does."""
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, *options, "-m", "kdbench"], cwd=cwd, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_current_folder_hides_no_module(tmp_path):
    package, here = tmp_path / "clone" / "kdbench", tmp_path / "here"
    (package / "cli").mkdir(parents=True)
    shutil.copy(Path(kdbench.__file__).with_name("__main__.py"), package)
    for name in ("__init__.py", "cli/__init__.py"):
        (package / name).touch()
    (package / "cli" / "main.py").write_text(SHOW)
    (here / "tensorboard").mkdir(parents=True)
    for name in ("json", "select", "profile"):
        (here / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    clone, own = str(tmp_path / "clone"), str(tmp_path / "own")
    path = os.pathsep.join([own, clone])
    for options in ([], ["-P"]):
        found, handed_on = asked(here, path, *options)
        assert str(here) not in found
        assert own in found
        assert handed_on == path
    found, handed_on = asked(clone, own)  # not installed: what it starts has to find it
    assert clone not in found
    assert handed_on == path
