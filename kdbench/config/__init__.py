"""The configuration of a run: gin files turned into checked values. No torch here."""

BASELINE = "ce"
"""The method that trains the student alone: it trains the teachers, and tables show differences from it."""
