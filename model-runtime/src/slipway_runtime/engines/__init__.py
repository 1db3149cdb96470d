"""What computes: an engine takes named arrays of some rows and gives named arrays of as many."""
