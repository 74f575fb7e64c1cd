"""The quick classifier: linear heads on the hidden states of the untrained backbone."""
