"""Stage 1: from the words of the command line to run specs. No torch here."""
