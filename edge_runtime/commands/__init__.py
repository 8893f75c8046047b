"""The commands that a factory PC has; the other packages bring theirs through entry points."""
