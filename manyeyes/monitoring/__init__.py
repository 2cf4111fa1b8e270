"""What shows a running cluster to the people who run it."""
