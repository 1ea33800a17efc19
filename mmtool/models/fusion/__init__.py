"""One file per fusion; `mmtool list fusion` shows them."""
