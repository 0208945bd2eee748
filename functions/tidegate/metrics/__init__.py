"""The metrics of Tidegate: one table for the code, the alarms, the dashboards and the documentation."""

from tidegate.metrics.definitions import Dimension, Emf, Emitter, Exposed, Kind, Label, Unit
from tidegate.metrics.table import Metric

__all__ = ["Dimension", "Emf", "Emitter", "Exposed", "Kind", "Label", "Metric", "Unit"]
