"""Curricula, one YAML file each, with their schema and loader.

To add one, put a file beside these; it is found by its name and needs no code.
"""
