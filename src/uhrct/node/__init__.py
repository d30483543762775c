"""A DICOM node: receives CT series, super-resolves those that its rules choose, sends the results to named peers."""
