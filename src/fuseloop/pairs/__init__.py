"""Reading and writing aligned pairs: files, folders, video; bit depth; colour; alignment; tiling."""
