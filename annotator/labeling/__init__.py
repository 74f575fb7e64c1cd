"""Labeling sessions, review, search, bulk answers, auto-accept, preferences and onboarding."""
