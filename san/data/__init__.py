"""What each run does with data. What happens once, before all runs, is in `prepare`."""
