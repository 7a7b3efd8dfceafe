"""The only package that parses, prints and exits."""

import gc

# A start makes a hundred thousand objects that stay: looking for garbage among them takes a twentieth of it.
gc.set_threshold(100_000)
