"""Chests whose topology is known exactly: primitives in mm, imaged at any resolution, with their truth beside."""
