"""Experiment toolkit for balanced, system-aware multimodal learning."""

__version__ = "0.1.0"
