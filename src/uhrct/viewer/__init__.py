"""A page for the browser that shows a scan, results and the truth side by side: served on loopback, or as one file."""
