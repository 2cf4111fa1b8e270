"""Pictures and looks of the pages that are written as one file: inline SVG, one style, no script."""
