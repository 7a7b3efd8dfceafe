"""The local page and its HTTP interface."""
