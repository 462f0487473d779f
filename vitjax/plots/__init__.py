"""Pictures: curves, tables of images, attention maps."""
