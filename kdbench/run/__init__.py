"""Stage 3: trains and evaluates one run spec."""
