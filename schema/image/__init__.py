"""The words of images."""
