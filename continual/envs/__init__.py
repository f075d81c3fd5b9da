"""Worlds: what they are, what they emit, and the loop that steps them."""
