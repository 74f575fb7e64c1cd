"""What an annotator does: sessions, review, search, bulk answers, auto-accept, preferences, onboarding."""
