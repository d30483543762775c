"""A page on loopback: upload a scan, see the progress, look at the result, download it."""
