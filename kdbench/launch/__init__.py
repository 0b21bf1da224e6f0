"""Stage 2: which process does which run, and how each run stands. Only `worker` needs torch."""
