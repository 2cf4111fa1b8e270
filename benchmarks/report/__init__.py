"""docs/benchmarks.md and its picture, made from raw results; nothing in them is written by hand."""
