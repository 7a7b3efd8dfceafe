"""Which clips, which speaker, which label."""
