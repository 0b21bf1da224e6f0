"""`python -m kdbench`."""

import os
import sys
from pathlib import Path

# The command kdbench does not look for modules in the current folder, where a file profile.py or a folder tensorboard/ would
# take the place of the real one; `python -m` does.
if not sys.flags.safe_path:
    current = sys.path.pop(0)
    # Workers and jobs are to find a clone that is not installed, too.
    if Path(__file__).parents[1].samefile(current):
        path = [os.environ.get("PYTHONPATH"), current]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))

from kdbench.cli.main import main

sys.exit(main())
