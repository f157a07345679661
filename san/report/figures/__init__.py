"""Figures for a paper: each module draws one kind, from typed values that its caller fills."""
