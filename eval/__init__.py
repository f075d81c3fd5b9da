"""Judgement: episodes played without learning, and what records say about a life."""
