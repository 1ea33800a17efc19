"""Numbers computed from a run log: balance, step timing, system, curves."""
