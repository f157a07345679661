"""Training: recipe, loop, checkpoint. Knows neither method, nor data set, nor Hydra."""
