"""The folder of a run: names of its files, one JSON file per image, and the tables made from them."""
