"""`manyeyes report`: the last hours as one self-contained HTML page."""
