"""What each run does with data: packed splits, resizes, augmentation, batches. What happens once is in `prepare`."""
