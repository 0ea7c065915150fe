"""The rules of images, and how their data comes in, lies safely, and goes."""
