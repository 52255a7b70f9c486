"""Configs of the launchers: data only."""
