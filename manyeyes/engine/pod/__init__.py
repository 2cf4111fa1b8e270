"""Scripts that run in or next to an engine. Each is a single file and needs only the standard library."""
