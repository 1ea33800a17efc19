"""One verdict per run, how sure it is, what is at stake and what to do about it."""
