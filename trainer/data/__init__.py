"""From image files to the tiles that a method is fitted to."""
