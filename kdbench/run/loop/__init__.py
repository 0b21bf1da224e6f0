"""The training loop and what belongs to it: budget, batches, counts, bookkeeping and state."""
