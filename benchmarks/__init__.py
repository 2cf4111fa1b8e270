"""Benchmarks of gateways on the same seeded work."""

import os

# manyeyes/devcluster/cluster.py gives each test worker its own ports. This worker number keeps clear of tests that run at the same time.
os.environ.setdefault("PYTEST_XDIST_WORKER", "gw9")
