"""From a clip to an answer."""
