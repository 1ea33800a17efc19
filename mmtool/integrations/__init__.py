"""Callbacks with which other trainers log a run that `mmtool diagnose` can judge."""
