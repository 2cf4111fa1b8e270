"""Prometheus' rules: figures worked out ahead of time, and alerts."""
