"""Stage 2: which process does which run, and the state of each run. Only `worker` needs torch."""
