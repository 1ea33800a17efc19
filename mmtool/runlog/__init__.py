"""The files a run leaves: what is written, crash-safely, and how it is read again."""
