"""One command for a data set: look, choose, train, evaluate, export."""
