"""The benchmark of tasks: segmenters and detectors on true, interpolated and super-resolved scans."""
