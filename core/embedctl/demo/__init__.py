"""What the demo needs; every part of it says that it is simulated."""
