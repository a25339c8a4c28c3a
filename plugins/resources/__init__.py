"""Plugins that look at the machine."""
