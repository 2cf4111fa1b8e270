"""`manyeyes report`: the last hours as one page that needs nothing else."""
