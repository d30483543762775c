"""Tasks on a CT volume: lungs, airways and vessels as label volumes, their surfaces, and nodules."""
