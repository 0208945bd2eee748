"""Traces of requests by OpenTelemetry. `otlp` imports its SDK, and is itself imported only where tracing is on."""
