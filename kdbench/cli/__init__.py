"""The front desk: parses the command line, calls the rooms below, and prints. Nothing else in kdbench prints."""
