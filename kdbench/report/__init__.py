"""Run folders → one table of runs → statistics → leaderboard. No torch here; import the module that is needed."""
