"""The one training step and everything around it: ranks, checkpoints, evaluation, launch."""
