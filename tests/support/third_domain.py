"""A domain that somebody adds to the examples: an objective with cases, a model that keeps none of the project's habits,
and an ensemble that uses the examples' steps.

python -m tests.support.third_domain RULES_FOLDER MODELS_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

MODEL, ENSEMBLE = "churn_scorer", "churn_titles"
COPIED = "title_ranking_popularity"
"""The example that the ensemble is a copy of."""

PLACED = "\nmodels:\n"

CONFIG = """\
name: "churn_scorer"
backend: "python"
max_batch_size: 8
input  { name: "TENURE" data_type: TYPE_FP32 dims: 1 }
output { name: "RISK"   data_type: TYPE_FP32 dims: 1 }
instance_group { count: 1 kind: KIND_CPU }
"""

SOURCE = """\
import triton_python_backend_utils as pb_utils, numpy as np, os
class TritonPythonModel :
  def execute( self,requests ) :
    answers=[ ]
    for Request in requests:
        x = pb_utils.get_input_tensor_by_name( Request,'TENURE' ).as_numpy( ) ; l=1/(1+x)
        answers.append( pb_utils.InferenceResponse( [ pb_utils.Tensor( 'RISK',l.astype( np.float32 ) ) ] ) )
    return answers
"""

RULES = """\
objective: churn_risk
summary: Will this account leave?
owner: retention
context:
  account_id: {type: string, required: true}
  plan: {type: string, values: [free, paid]}
sticky_key: account_id
timeout_ms: 500
rules:
  - id: paid
    when: {plan: paid}
    serve: churn_scorer/1
  - id: half
    split: {churn_titles: 50, churn_scorer: 50}
"""

CASES = """\
objective: churn_risk
cases:
  - name: those who pay get the pinned version
    context: {account_id: "7", plan: paid}
    expect: {rule: paid, target: churn_scorer/1}
  - name: the others get the newest
    context: {account_id: "7"}
    expect: {rule: half}
"""


def add(rules: Path, models: Path) -> None:
    """Add the domain to a rules directory and a model repository; nothing changes where it is there already."""
    (rules / "objectives" / "churn_risk.yaml").write_text(RULES)
    (rules / "cases" / "churn_risk.yaml").write_text(CASES)
    fleet = rules / "fleet.yaml"
    for name in (MODEL, ENSEMBLE):
        if f"\n  {name}: " not in fleet.read_text():
            fleet.write_text(fleet.read_text().replace(PLACED, f"{PLACED}  {name}: {{shards: [alpha]}}\n", 1))
    version = models / MODEL / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version / "model.py").write_text(SOURCE)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    (models / ENSEMBLE / "1").mkdir(parents=True, exist_ok=True)
    (models / ENSEMBLE / "1" / ".keep").write_text("An ensemble has no files of its own.\n")
    config = (models / COPIED / "config.pbtxt").read_text()
    (models / ENSEMBLE / "config.pbtxt").write_text(config.replace(COPIED, ENSEMBLE))


if __name__ == "__main__":
    add(Path(sys.argv[1]), Path(sys.argv[2]))
