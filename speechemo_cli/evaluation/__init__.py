"""Training and scoring: how good a model is."""
