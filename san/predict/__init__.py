"""Answers of a saved adapter for images, with the scores where labels are there."""
