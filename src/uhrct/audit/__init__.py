"""Evidence for the structures of a super-resolved scan: which of them the scan shows, and which may be invented."""
