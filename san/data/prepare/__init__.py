"""What happens once: images of a source, found or fetched, verified and packed."""
