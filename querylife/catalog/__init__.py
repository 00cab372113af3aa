"""Product catalogues: the reader, and a sample catalogue that is drawn."""
