"""RMSNorm of each head, then its rotation by position, in one pass over memory."""
