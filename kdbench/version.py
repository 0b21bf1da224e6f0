"""The version of kdbench."""

__version__ = "0.1.0"
