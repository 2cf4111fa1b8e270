"""Grafana's data source and dashboards; the dashboards are made by `python -m manyeyes.monitoring.grafana.build`."""
