"""The service on the factory PC: one answer for every trigger, in time."""
