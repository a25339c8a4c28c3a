"""Plugins that refuse updates."""
