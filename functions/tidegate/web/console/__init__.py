"""The operators' console: an app of the control plane, and what the gateway has of it, which passes requests on.

`app.py` is the app, and imports the control plane. `forwarding.py` and `events.py` are the gateway's, and import none of that.
"""
