"""Plugins that make one model out of many updates."""
