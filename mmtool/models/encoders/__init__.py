"""One file per encoder; `mmtool list encoders` shows them."""
