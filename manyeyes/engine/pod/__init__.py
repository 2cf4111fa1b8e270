"""What runs beside an engine in its pod on Kubernetes: single files, standard library only, for images that have a python3."""
