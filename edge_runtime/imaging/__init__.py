"""Pure functions from pixels to tiles and from maps to regions."""
