"""What can be done with z: files of it, the z of a photo, directions, sums."""
