"""Renderings of a report: terminal text and one HTML file; JSON is `Report.as_dict`."""
