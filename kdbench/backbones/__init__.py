"""The networks that can be student or teacher, one file for each family."""
