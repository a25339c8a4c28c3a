"""Plugins that make updates smaller, with what they leave out kept for later."""
