"""Scales and variants: named sets of overrides, as YAML files. All defaults are in the code."""
