"""`make status`: the truth of the dashboards in a terminal."""
