"""Faults on a cluster of processes, and the alerts that they raise."""
