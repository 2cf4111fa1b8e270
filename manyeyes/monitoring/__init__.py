"""Shows operators the state of a running cluster: dashboards, alerts, status and report."""
