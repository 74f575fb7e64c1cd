"""From words to token ids: the instruction, the utterance, and what the model may answer."""
