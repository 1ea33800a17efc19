"""Raw files in, arrays out; what a preparer never has to do itself."""
