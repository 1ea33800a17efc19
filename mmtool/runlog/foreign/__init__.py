"""Logs that mmtool did not write, mapped to the tables of a run."""
