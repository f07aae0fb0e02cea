"""Tables and pages that show what the library does."""
