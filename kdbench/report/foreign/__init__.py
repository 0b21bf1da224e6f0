"""Rows of other people: read from a results.csv or an archive, checked, and merged into the records of a leaderboard."""
