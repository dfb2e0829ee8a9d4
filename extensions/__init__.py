"""The template's own Python: used while developing and testing it, never while it renders."""
