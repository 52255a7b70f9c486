"""Comparisons with other libraries, each of which says how it is run."""
