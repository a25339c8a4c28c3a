"""Plugins that keep private what a model is trained on."""
