"""One file per balancing method; `mmtool list methods` shows them."""
