"""What Prometheus and its neighbours cost."""
