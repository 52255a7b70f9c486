"""Launchers and what only they need; nobody imports this package."""
