"""Which clips, whose voice, which label."""
