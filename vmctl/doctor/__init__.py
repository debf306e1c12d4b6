"""Symptom, cause, fix."""
