"""Predicts whether a flight leaves New York more than 15 minutes late."""
