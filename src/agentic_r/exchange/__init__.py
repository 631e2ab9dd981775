"""Files of other systems, read as ours and written from ours."""
