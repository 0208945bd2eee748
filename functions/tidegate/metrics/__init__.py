"""The metrics of Tidegate: one table for the code, the alarms, the dashboards and the documentation."""

from tidegate.metrics.definitions import Dimension, Emf, Emitter, Exposed, Kind, Label, Unit
from tidegate.metrics.table import BY_OBJECTIVE, BY_REASON, BY_RULE, BY_VARIANT, Metric

__all__ = [
    "BY_OBJECTIVE",
    "BY_REASON",
    "BY_RULE",
    "BY_VARIANT",
    "Dimension",
    "Emf",
    "Emitter",
    "Exposed",
    "Kind",
    "Label",
    "Metric",
    "Unit",
]
