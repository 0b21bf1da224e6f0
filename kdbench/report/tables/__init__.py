"""Rows, columns and notes of the leaderboard's tables, independent of their format."""
