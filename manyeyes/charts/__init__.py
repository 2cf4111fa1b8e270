"""SVG charts, CSS and templates of self-contained HTML reports."""
