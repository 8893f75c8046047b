"""Sources of frames and the process that feeds them to the service."""
