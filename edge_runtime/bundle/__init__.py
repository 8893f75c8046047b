"""The bundle: the contract between the workstation and the line."""
