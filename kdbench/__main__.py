"""`python -m kdbench`."""

import sys

from kdbench.cli.main import main

sys.exit(main())
