"""Prompts as token ids: the instruction, the utterance, and the possible answers."""
