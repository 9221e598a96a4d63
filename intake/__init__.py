"""How pictures get in, from whatever people have: archives, folders, photos of any kind, the web."""
