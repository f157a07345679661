"""A method attached to a model: attach, switch, merge, save, restore; the file that is saved."""
