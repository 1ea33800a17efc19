"""Raw release in, store out: drives a preparer, decodes in parallel, resumes, verifies."""
