"""Published methods to compare with: their networks and their training."""
