"""What a user calls: fusers, and the loading and saving of their weights."""
