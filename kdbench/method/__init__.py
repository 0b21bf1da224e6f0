"""The contract of a distillation method: everything that a method file imports.

`from kdbench.method import …` is the only import from kdbench that a method file needs. docs/adding-a-method.md walks
through one.
"""

from kdbench.backbones.backbone import Backbone, Features
from kdbench.backbones.initialise import he_normal
from kdbench.errors import RunError
from kdbench.method.base import Method
from kdbench.method.batch import Batch, Info
from kdbench.method.class_index import ClassIndex
from kdbench.method.losses import distillation, kd_term, soft_cross_entropy, softened_kl
from kdbench.method.memory import ImageMemory, last_of_each
from kdbench.method.phases import Phase
from kdbench.method.share import Share
from kdbench.method.teacher import Teacher
from kdbench.method.update import Update
from kdbench.precision import at_least_float32, full_precision
from kdbench.streams import Streams

__all__ = [
    "Backbone",
    "Batch",
    "ClassIndex",
    "Features",
    "ImageMemory",
    "Info",
    "Method",
    "Phase",
    "RunError",
    "Share",
    "Streams",
    "Teacher",
    "Update",
    "at_least_float32",
    "distillation",
    "full_precision",
    "he_normal",
    "kd_term",
    "last_of_each",
    "soft_cross_entropy",
    "softened_kl",
]
