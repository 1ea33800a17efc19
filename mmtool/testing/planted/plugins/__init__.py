"""Encoders and a fusion that planted problems need beside the built-in ones, named by file."""
