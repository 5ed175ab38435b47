"""The folder of a run: its names, one JSON file for each image, and the tables made from them."""
