"""One file per rule; its docstring is what `mmtool list rules NAME` prints."""
