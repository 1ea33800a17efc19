"""From a run directory to findings: metrics, rules and reports, without torch."""
