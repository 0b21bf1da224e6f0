"""Intervals, tests, ranks and power: numbers in, numbers out."""
