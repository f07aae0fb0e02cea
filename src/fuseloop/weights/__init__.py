"""Weight files: reading and writing them, and the shipped ones with their cards."""
