"""Migrations with a function that does not say which model it is about."""
