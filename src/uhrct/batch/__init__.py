"""Super-resolve many series: what to do, a ledger of what was done, worker processes that share it."""
