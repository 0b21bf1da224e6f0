"""`kdbench tune`: the same number of trials for every method."""
