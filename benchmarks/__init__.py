"""What produces the tables in docs/; never imported by the packages."""
