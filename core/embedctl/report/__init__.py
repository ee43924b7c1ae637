"""Reports made of what was measured: text in, text out; reads and writes nothing."""
