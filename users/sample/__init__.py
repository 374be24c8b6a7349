"""Invented users to try the project with: users.csv, and how it was made (generate.py)."""
