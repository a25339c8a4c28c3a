"""Plugins that make the data of one peer ready."""
