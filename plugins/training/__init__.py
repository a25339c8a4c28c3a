"""Plugins that know a model and train it."""
