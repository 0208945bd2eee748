"""Change what the fleet serves: functions over one `ControlPlane` (`plane.py`), which any number of processes may have.

- Publish (`publish.py`): `check.py` → `assign.py` → `push.py` → activate.
- Activate (`activate.py`), for a rollback too: `claims.py` → `trying.py` → `load.py` → `validate.py` →
  `flip.py`. `change.py` has its input and result, `rollout.py` its state.
- Reconcile (`reconcile.py`): `desired.py` (what every shard must hold) beside `observe.py` (what every endpoint holds).
- Take back: `rollback.py`, `guard.py` (by an alarm), `recover.py` (a lost pointer, from what `remains.py` finds).
- Report: `status.py`, `inspection.py`, `outlook.py` (what a publish changes).
- Rules come from a directory (`following.py`), or an archive (`rules_archive.py`).

Whatever reads a store or the registry raises `StoreError` where that does not answer. `by` and `why` say for the history who
changes something, and why.
"""
