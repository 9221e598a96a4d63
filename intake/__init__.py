"""Reading pictures: from folders and .zip files, of any format, and from the web."""
