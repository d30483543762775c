"""Downstream tasks on CT: segmentation of lungs, airways and vessels, detection of nodules."""
