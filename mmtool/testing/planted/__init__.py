"""Problems whose right verdict is known, trained with the real engine and judged by diagnosis.

    python -m mmtool.testing.planted --help

A plugin author can train any of them with a method, encoder or fusion of their own.
"""
