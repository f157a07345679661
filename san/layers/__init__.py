"""Torch layers that methods share."""
