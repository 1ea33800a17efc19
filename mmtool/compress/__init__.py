"""Making trained models cheaper: pruning, distillation, data selection.

The room is empty for now; what moves in uses the hook surface of `mmtool.methods._base`.
"""
