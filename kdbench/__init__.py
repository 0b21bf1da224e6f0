"""kdbench: compares knowledge-distillation methods under one protocol."""

__version__ = "0.1.0"
