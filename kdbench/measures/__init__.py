"""Final measurements of a run in addition to accuracy: calibration, robustness, convergence, cost. See docs/measures.md."""

VERSION = 1
"""Raised whenever the same network would be measured differently: `measures.version` of a result. No part of run ids."""
