"""The embedding backends behind one protocol."""
