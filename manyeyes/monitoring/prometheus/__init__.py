"""Prometheus' recording rules and alerts."""
