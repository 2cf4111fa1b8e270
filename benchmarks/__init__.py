"""Gateways side by side, on the same seeded work."""

import os

# manyeyes/devcluster/cluster.py gives each test worker ports of its own; this is one more worker, beside any tests that run.
os.environ.setdefault("PYTEST_XDIST_WORKER", "gw9")
