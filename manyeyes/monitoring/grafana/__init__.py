"""Grafana's dashboards as data. `python -m manyeyes.monitoring.grafana.build` writes their JSON."""
