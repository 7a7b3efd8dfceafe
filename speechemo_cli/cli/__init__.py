"""The only room that parses, prints and exits."""
