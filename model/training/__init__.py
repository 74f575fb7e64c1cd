"""Fine-tuning an adapter: which weights, which optimizer, the loss and the steps."""
