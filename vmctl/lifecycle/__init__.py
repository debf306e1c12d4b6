"""Carries out plans, step by step."""
