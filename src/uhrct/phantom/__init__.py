"""Chests whose topology is known exactly: shapes in mm, imaged at any resolution, stored with their truth."""
