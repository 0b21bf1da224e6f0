"""The front desk: parses the command line, calls the work, prints what comes back. Nothing else in kdbench prints."""
