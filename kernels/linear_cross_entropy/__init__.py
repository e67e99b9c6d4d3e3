"""The head and the cross-entropy in one: a block of logits at a time, never all of them."""
