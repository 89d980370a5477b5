"""Jinja templates and style of the report page."""
