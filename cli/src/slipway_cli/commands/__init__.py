"""The commands, as typed functions; each opens what it needs and prints a view."""
